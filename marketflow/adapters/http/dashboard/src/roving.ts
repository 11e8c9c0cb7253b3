/** Makes a table of buttons a single stop of the Tab key; the arrow keys move within it. */

export function roving(table: HTMLTableElement): void {
  table.addEventListener("keydown", (event) => {
    const here = event.target;
    if (!(here instanceof HTMLButtonElement) || event.altKey || event.ctrlKey || event.metaKey) return;
    const there = neighbour(table, here, event.key);
    if (there === null) return;
    event.preventDefault();
    there.focus();
  });
  table.addEventListener("focusin", (event) => {
    if (!(event.target instanceof HTMLButtonElement)) return;
    for (const button of table.querySelectorAll("button")) button.tabIndex = button === event.target ? 0 : -1;
  });
}

function neighbour(table: HTMLTableElement, here: HTMLButtonElement, key: string): HTMLButtonElement | null {
  const rows = [...table.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("button")]);
  const line = rows.findIndex((buttons) => buttons.includes(here));
  const row = rows[line];
  if (row === undefined) return null;
  const column = row.indexOf(here);
  switch (key) {
    case "ArrowRight":
      return row[column + 1] ?? null;
    case "ArrowLeft":
      return row[column - 1] ?? null;
    case "ArrowDown":
      return rows[line + 1]?.[column] ?? null;
    case "ArrowUp":
      return rows[line - 1]?.[column] ?? null;
    case "Home":
      return row[0] ?? null;
    case "End":
      return row.at(-1) ?? null;
    default:
      return null;
  }
}
