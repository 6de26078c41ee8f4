"use strict";
// Headings sort, long tables are shown in pages. Without this script every row is there, in the order of the file.
const PAGE = 25;
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  let rows = [...body.rows], first = 0, all = rows.length <= PAGE;

  const bar = document.createElement("p"), place = document.createElement("span");
  const button = (name, action) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = name;
    made.onclick = () => { action(); show(); };
    return made;
  };
  const back = button("Back", () => { first = Math.max(0, first - PAGE); });
  const on = button("Next", () => { first += PAGE; });
  const every = button("All rows", () => { all = !all; first = 0; });
  bar.className = "pages";
  place.setAttribute("aria-live", "polite");
  bar.append(back, on, every, place);
  if (!all) table.parentElement.after(bar);

  function show() {
    const last = all ? rows.length : Math.min(rows.length, first + PAGE);
    body.replaceChildren(...rows);
    rows.forEach((row, i) => { row.hidden = !all && (i < first || i >= last); });
    place.textContent = ` rows ${first + 1} to ${last} of ${rows.length}`;
    back.disabled = all || first === 0;
    on.disabled = all || last === rows.length;
    every.textContent = all ? `Pages of ${PAGE}` : "All rows";
  }

  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const text = row => row.cells[column] ? row.cells[column].textContent : "";
    const number = row => { const x = text(row); return /^[-+]?inf/.test(x) ? (x[0] === "-" ? -Infinity : Infinity) : parseFloat(x); };
    const numeric = heading.classList.contains("number");
    const sorter = document.createElement("button");
    sorter.type = "button";
    sorter.append(...heading.childNodes);
    heading.append(sorter);
    sorter.onclick = () => {
      const up = heading.getAttribute("aria-sort") !== "ascending", sign = up ? 1 : -1;
      for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      rows.sort((a, b) => {
        const missing = (text(a) === "") - (text(b) === ""); // what is missing comes last either way
        if (missing) return missing;
        return numeric ? sign * (number(a) > number(b) ? 1 : number(a) < number(b) ? -1 : 0) : sign * text(a).localeCompare(text(b), "en", { numeric: true });
      });
      first = 0;
      show();
    };
  });
  show();
}
// On paper everything is unfolded, and folded again after.
let folded = [];
window.addEventListener("beforeprint", () => { folded = [...document.querySelectorAll("details:not([open])")]; for (const d of folded) d.open = true; });
window.addEventListener("afterprint", () => { for (const d of folded) d.open = false; });
