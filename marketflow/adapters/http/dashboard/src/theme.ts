/** Dark or light: as the system has it, or as chosen here. */

import { byId, setText } from "./dom";

const THEMES = ["auto", "light", "dark"] as const;
type Theme = (typeof THEMES)[number];

const KEY = "marketflow.theme";

/** Before the page is painted: take over what was chosen on an earlier visit. */
export function restoreTheme(): void {
  apply(themeOf(stored()));
}

export function themeSwitch(onChange: () => void): void {
  const button = byId("theme", HTMLButtonElement);
  const label = byId("theme-name", HTMLElement);
  setText(label, shown());
  button.addEventListener("click", () => {
    const theme = THEMES[(THEMES.indexOf(shown()) + 1) % THEMES.length] ?? "auto";
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // Storage may be forbidden; then the choice lasts as long as the page.
    }
    apply(theme);
    setText(label, theme);
    onChange();
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onChange);
}

function shown(): Theme {
  return themeOf(document.documentElement.dataset["theme"]);
}

function themeOf(name: string | null | undefined): Theme {
  return THEMES.find((theme) => theme === name) ?? "auto";
}

function stored(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function apply(theme: Theme): void {
  document.documentElement.dataset["theme"] = theme;
}
