// The page is whole without this: it sorts tables, shows what a mark is, and opens what is printed.
"use strict";

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const rising = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
      body.append(...[...body.rows].sort((a, b) => order(a.cells[column], b.cells[column], rising)));
    });
  });
}

for (const hint of document.querySelectorAll(".sorts")) hint.hidden = false;

// What was not measured has no key, and comes last either way.
function order(a, b, rising) {
  const [one, other] = [a.dataset.key, b.dataset.key];
  if (one === undefined || other === undefined) return (one === undefined) - (other === undefined);
  const difference = Number(one) - Number(other);
  return (Number.isNaN(difference) ? one.localeCompare(other) : difference) * (rising ? 1 : -1);
}

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);
for (const title of document.querySelectorAll("svg g > title, svg rect > title, svg polyline > title")) {
  const mark = title.parentNode;
  const text = title.textContent;
  mark.setAttribute("aria-label", text);
  mark.setAttribute("role", "img");
  title.remove(); // the browser would show it a second time, and late
  const show = (event) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = mark.getBoundingClientRect();
    const x = event.clientX ?? box.left + box.width / 2;
    const y = event.clientY ?? box.bottom;
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(8, Math.min(x + 12, room)) + scrollX}px`;
    tip.style.top = `${y + 14 + scrollY}px`;
  };
  mark.addEventListener("pointermove", show);
  mark.addEventListener("pointerleave", () => (tip.hidden = true));
  if (mark.classList.contains("point") || mark.classList.contains("row")) {
    mark.setAttribute("tabindex", "0");
    mark.addEventListener("focus", show);
    mark.addEventListener("blur", () => (tip.hidden = true));
  }
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape") tip.hidden = true;
});

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
