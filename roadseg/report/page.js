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

// A link into the appendix opens what it leads to.
const open = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
};
addEventListener("hashchange", open);
open();

// The chapter that is read is marked at the side; on narrow screens the list is closed again.
const links = [...document.querySelectorAll("nav a")];
const heads = links.map((link) => document.getElementById(decodeURIComponent(link.hash.slice(1))));
const mark = () => {
  const last = heads.findLastIndex((head) => head && head.getBoundingClientRect().top < innerHeight / 3);
  links.forEach((link, number) => link.classList.toggle("current", number === last));
};
addEventListener("scroll", mark, { passive: true });
mark();
const list = document.querySelector("nav details");
const narrow = matchMedia("(max-width: 63.99rem)");
const fold = () => { list.open = !narrow.matches; };
narrow.addEventListener("change", fold);
for (const link of links) link.addEventListener("click", () => { if (narrow.matches) list.open = false; });
fold();
