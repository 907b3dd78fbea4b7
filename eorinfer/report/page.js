"use strict";
// Heads of columns become buttons that sort. Without scripts the tables stay as they were written.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const compare = head.classList.contains("number") ? byNumber : byText;
      body.append(...[...body.rows].sort((a, b) => compare(a.cells[column], b.cells[column], sign)));
    });
  });
}

// Cells without a number stand last, whichever way the others go.
function byNumber(a, b, sign) {
  const [x, y] = [a, b].map((cell) => (cell.dataset.value === undefined ? null : Number(cell.dataset.value)));
  return x === null || y === null ? (x === null) - (y === null) : sign * (x - y);
}

function byText(a, b, sign) {
  return sign * a.textContent.localeCompare(b.textContent, "en", { numeric: true });
}
