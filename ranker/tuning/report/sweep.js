// Pointing at a trial anywhere marks it everywhere, and says what it was.
const pointed = document.getElementById("pointed");
const words = new Map();
for (const part of document.querySelectorAll("svg [data-trial]")) {
  const title = part.querySelector("title");
  if (title) words.set(part.dataset.trial, title.textContent);
}
function light(name) {
  for (const part of document.querySelectorAll(".lit")) part.classList.remove("lit");
  pointed.hidden = !words.has(name);
  if (pointed.hidden) return;
  for (const part of document.querySelectorAll(`[data-trial="${name}"]`)) part.classList.add("lit");
  pointed.textContent = words.get(name);
}
for (const kind of ["mouseover", "click"]) {
  document.addEventListener(kind, (event) => {
    const part = event.target.closest("[data-trial]");
    light(part ? part.dataset.trial : "");
  });
}
