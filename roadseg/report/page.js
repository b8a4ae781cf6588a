"use strict";

// A click on the head of a column sorts a table by it.
const unknown = ["", "none", "not known"];
const value = (cell) => {
  const text = cell.innerText.trim();
  const number = text.replace(/−/g, "-").replace(/,/g, "").match(/^[<+]?\s*(-?[\d.]+)/);
  return { text, number: number ? Number(number[1]) : NaN };
};

for (const table of document.querySelectorAll("main table")) {
  const body = table.tBodies[0];
  if (!table.tHead || !body || body.rows.length < 3) continue;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.ariaSort !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.ariaSort = null;
      head.ariaSort = up ? "ascending" : "descending";
      const rows = [...body.rows].map((row) => ({ row, ...value(row.cells[column]) }));
      const known = rows.filter(({ text }) => !unknown.includes(text));
      const numeric = known.length && known.every(({ number }) => !Number.isNaN(number));
      const compare = numeric
        ? (a, b) => a.number - b.number
        : (a, b) => a.text.localeCompare(b.text, "en", { numeric: true });
      known.sort((a, b) => (up ? compare(a, b) : compare(b, a)));
      const rest = rows.filter((each) => !known.includes(each)); // last, either way
      body.append(...[...known, ...rest].map(({ row }) => row));
    });
  });
}

for (const compare of document.querySelectorAll(".compare")) {
  const slider = compare.querySelector("input[type=range]");
  slider.addEventListener("input", () => compare.style.setProperty("--at", `${slider.value}%`));
}

// What is wider than its place says so.
const wider = new ResizeObserver((entries) => {
  for (const { target } of entries) target.classList.toggle("more", target.scrollWidth > target.clientWidth + 1);
});
document.querySelectorAll(".scroll").forEach((box) => wider.observe(box));

// A link into the appendix opens what it leads to, also when it is followed a second time.
const reveal = () => {
  const target = document.querySelector(":target");
  const folded = target?.closest("main details");
  if (folded && !folded.open) {
    folded.open = true;
    target.scrollIntoView();
  }
};
addEventListener("hashchange", reveal);
document.addEventListener("click", (event) => {
  if (event.target.closest('a[href^="#"]')) setTimeout(reveal);
});
reveal();

// The chapter that is read is marked at the side, and named where the list is folded.
const links = [...document.querySelectorAll("nav a")];
const heads = links.map((link) => document.getElementById(link.getAttribute("href").slice(1)));
const list = document.querySelector("nav details");
const passed = new Set(); // chapters that begin above the upper third of the screen
const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) passed[entry.isIntersecting ? "add" : "delete"](entry.target);
  const current = heads.findLastIndex((head) => passed.has(head));
  links.forEach((link, number) => (link.ariaCurrent = number === current ? "true" : null));
  list.firstElementChild.dataset.chapter = links[current]?.textContent ?? "";
}, { rootMargin: "10000000px 0px -66% 0px" });
heads.forEach((head) => head && observer.observe(head));

// Beside the text the list is open; above it a choice folds it.
const narrow = matchMedia("(max-width: 63.99rem)");
const fold = () => (list.open = !narrow.matches);
narrow.addEventListener("change", fold);
list.addEventListener("click", (event) => event.target.matches("a") && fold());
fold();
