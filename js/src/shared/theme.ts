// Light or dark: the host says so (JupyterLab's and VS Code's own marks first), else the page's ground, else the system.

export type Theme = "light" | "dark";

export function themeOf(el: Element): Theme {
  const { body } = el.ownerDocument;
  const jupyter = body.dataset.jpThemeLight;
  if (jupyter !== undefined) return jupyter === "false" ? "dark" : "light";
  if (body.classList.contains("vscode-dark") || body.classList.contains("vscode-high-contrast")) return "dark";
  if (body.classList.contains("vscode-light")) return "light";
  for (let node: Element | null = el; node; node = node.parentElement) {
    const ground = parseColour(getComputedStyle(node).backgroundColor);
    if (ground) return 0.299 * ground[0] + 0.587 * ground[1] + 0.114 * ground[2] < 128 ? "dark" : "light";
  }
  return globalThis.matchMedia?.("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

/** Calls back when the host or the system changes its mind. Returns the end of watching. */
export function watchTheme(el: Element, callback: (theme: Theme) => void): () => void {
  let now = themeOf(el);
  const look = () => {
    const next = themeOf(el);
    if (next !== now) callback((now = next));
  };
  const observer = new MutationObserver(look);
  observer.observe(el.ownerDocument.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class", "style"] });
  const system = globalThis.matchMedia?.("(prefers-color-scheme: dark)");
  system?.addEventListener("change", look);
  // When `render` runs the host may not have put `el` into the page yet, and then its ground is not known.
  const frame = requestAnimationFrame(look);
  return () => {
    cancelAnimationFrame(frame);
    observer.disconnect();
    system?.removeEventListener("change", look);
  };
}

function parseColour(css: string): [number, number, number] | null {
  const parts = css.match(/[\d.]+/g)?.map(Number);
  if (!parts || parts.length < 3 || parts[3] === 0) return null;
  return [parts[0]!, parts[1]!, parts[2]!];
}
