// All that the report does: contents that fold on small screens, tables that a click on a head
// sorts, dividers that move. Without it the page is the same, and lies still.

const contents = document.querySelector("nav details");
const small = matchMedia("(max-width: 74.99rem)");
const fold = () => (contents.open = !small.matches);
small.addEventListener("change", fold);
contents.addEventListener("click", (event) => event.target.matches("a") && fold());
fold();

// Numbers by value ("−1.2", "< 0.001", "0.44 · 10⁹", "12.3 (14.0)"), everything else as text.
const unknown = ["", "none", "unknown", "cannot be told"];
const value = (cell) => {
  const text = cell.textContent.trim();
  const found = text.match(/^[<±]?\s*([+−-]?[\d,]*\.?\d+)(?![\w.])/);
  return { text, number: found ? +found[1].replace("−", "-").replaceAll(",", "") : NaN };
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
