/** The theme: dark or light, from the system or as chosen on the page. */

import { byId, setText } from "./dom";

const THEMES = ["auto", "light", "dark"] as const;
type Theme = (typeof THEMES)[number];

const KEY = "marketflow.theme";

/** Apply the choice of an earlier visit. It runs before the page is painted. */
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
      // Storage may be disabled; then the choice lasts as long as the page.
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
