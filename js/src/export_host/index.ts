// Runs an exported page: no kernel, no network. It reads what the page carries (bundles and snapshots as JSON), gives each
// widget a model of its own that plays the recorded answers back, and mounts it.

import { type Recorded, recordedModel } from "./recorded";

interface Snapshot {
  bundle: string;
  state: Record<string, unknown>;
  answers: Recorded[];
}

interface Widget {
  initialize?(props: unknown): unknown;
  render(props: unknown): unknown;
}

function carried<Value>(doc: Document, id: string): Value {
  return JSON.parse(doc.getElementById(id)?.textContent ?? "{}") as Value;
}

/** Mounts every element that names a snapshot (`data-sw-snapshot`). */
export async function start(doc: Document): Promise<void> {
  const bundles = carried<Record<string, string>>(doc, "sw-bundles");
  const snapshots = carried<Record<string, Snapshot>>(doc, "sw-snapshots");
  const modules = new Map<string, Promise<{ default: Widget | (() => Widget) }>>();
  const load = (name: string) => {
    const source = new Blob([bundles[name] ?? ""], { type: "text/javascript" });
    const module = modules.get(name) ?? (import(URL.createObjectURL(source)) as Promise<{ default: Widget }>);
    modules.set(name, module);
    return module;
  };
  for (const el of doc.querySelectorAll<HTMLElement>("[data-sw-snapshot]")) {
    const snapshot = snapshots[el.dataset.swSnapshot ?? ""];
    if (!snapshot) continue;
    const { default: given } = await load(snapshot.bundle);
    const widget = typeof given === "function" ? given() : given;
    const model = recordedModel(snapshot.state, snapshot.answers);
    await widget.initialize?.({ model });
    el.replaceChildren(); // the plain-text fallback has served
    await widget.render({ model, el });
  }
}

if (typeof document !== "undefined" && document.getElementById("sw-snapshots")) void start(document);
