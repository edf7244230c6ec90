// A widget from a component: `initialize` owns the transport, `render` only mounts, and nothing lives in the module
// (marimo evaluates it once for many widgets).

import { type ComponentType, createContext, render } from "preact";
import { useCallback, useContext, useEffect, useId, useRef, useState } from "preact/hooks";
import sheet from "./look.css";
import { type Theme, themeOf, watchTheme } from "./theme";
import { type Answer, type Model, type Params, Transport } from "./transport";

interface Root {
  model: Model;
  transport: Transport;
  theme: Theme;
  /** Before every id of this root: Preact counts ids from zero in each, and a page has many. */
  prefix: string;
}

interface Place extends Root {
  /** The keys of this widget in a sentence, and whether it is shown. */
  keys: { text: string; open: boolean; toggle: () => void };
}

interface Make {
  /** The class of the root, before every rule of the widget's own sheet; several where sheets of others are worn too. */
  name: string;
  css: string;
  /** The keys, in a sentence. */
  keys: string;
}

const PlaceContext = createContext<Place | null>(null);

export function usePlace(): Place {
  const place = useContext(PlaceContext);
  if (!place) throw new Error("A view was drawn outside of a widget.");
  return place;
}

/** An id that no other element of the page has, whatever else is shown on it. */
export function useDomId(): string {
  return `${usePlace().prefix}-${useId()}`;
}

/** The default export of a widget's bundle. */
export function widget(App: ComponentType, { name, css, keys }: Make) {
  return () => {
    let transport: Transport | undefined;
    return {
      initialize({ model }: { model: Model }) {
        transport = new Transport(model);
        return () => transport?.dispose();
      },
      render({ model, el }: { model: Model; el: HTMLElement }) {
        const link = (transport ??= new Transport(model));
        const style = document.createElement("style");
        style.textContent = sheet + css;
        const root = document.createElement("div");
        root.className = `sw-root ${name}`;
        const prefix = `sw-${Math.random().toString(36).slice(2)}`;
        el.append(style, root);
        const draw = (theme: Theme) => {
          root.dataset.theme = theme;
          render(<Frame App={App} keys={keys} root={{ model, transport: link, theme, prefix }} />, root);
        };
        draw(themeOf(el));
        const unwatch = watchTheme(el, draw);
        return () => {
          unwatch();
          render(null, root);
          style.remove();
          root.remove();
        };
      },
    };
  };
}

function Frame({ App, keys, root }: { App: ComponentType; keys: string; root: Root }) {
  const [open, setOpen] = useState(false);
  const toggle = () => setOpen(!open);
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // Ctrl+S still saves the notebook
    // JupyterLab's command mode cuts cells at x and adds them at b, wherever in a cell the focus is. An attribute
    // data-lm-suppress-shortcuts on the root does not hold it: its selectors match the focused element itself first.
    event.stopPropagation();
    if (event.key !== "?") return;
    if ((event.target as Element).closest("input:not([type=range], [type=checkbox]), textarea, select")) return;
    toggle();
    event.preventDefault();
  };
  return (
    <PlaceContext.Provider value={{ ...root, keys: { text: keys, open, toggle } }}>
      <div onKeyDown={onKeyDown}>
        <App />
      </div>
    </PlaceContext.Provider>
  );
}

/** A synced trait: its value now, and a setter that tells Python. */
export function useTrait<Value>(name: string): [Value, (value: Value) => void] {
  const { model } = usePlace();
  const [value, setValue] = useState(() => model.get(name) as Value);
  useEffect(() => {
    const read = () => setValue(() => model.get(name) as Value);
    read();
    model.on(`change:${name}`, read);
    return () => model.off(`change:${name}`, read);
  }, [model, name]);
  const set = useCallback(
    (next: Value) => {
      model.set(name, next);
      model.save_changes();
      setValue(() => next);
    },
    [model, name],
  );
  return [value, set];
}

/** False in an exported page: what was not recorded must look off and say why. */
export function useLive(): boolean {
  return usePlace().model.get("_live") !== false;
}

export interface Asked<Result> {
  answer: Answer<Result> | null;
  error: string | null;
  /** True from the asking on; the last answer stays in sight meanwhile. */
  waiting: boolean;
  /** No answer, nor a part of one, for 15 s: the kernel is busy or gone. */
  late: boolean;
}

const NOT_ASKED = { answer: null, error: null, waiting: false, late: false };

/** Asks whenever `params` change (by value); answers to earlier questions are dropped. `null` asks nothing. */
export function useRequest<Result>(method: string, params: Params | null): Asked<Result> {
  const { transport } = usePlace();
  const [asked, setAsked] = useState<Asked<Result>>(NOT_ASKED);
  const newest = useRef(0);
  const key = params && JSON.stringify(params);
  useEffect(() => {
    const number = ++newest.current;
    if (key === null) {
      setAsked(NOT_ASKED);
      return;
    }
    const mine = () => number === newest.current;
    setAsked((before) => ({ ...before, waiting: true, late: false }));
    const patience = () => setTimeout(() => mine() && setAsked((before) => ({ ...before, late: true })), 15_000);
    let timer = patience();
    const show = (answer: Answer<Result>, waiting: boolean) =>
      mine() && setAsked({ answer, error: null, waiting, late: false });
    transport
      .request<Result>(method, JSON.parse(key) as Params, (part) => {
        clearTimeout(timer);
        if (mine()) timer = patience();
        show(part, true);
      })
      .then((answer) => show(answer, false))
      .catch((reason: Error) => mine() && setAsked((b) => ({ ...b, error: reason.message, waiting: false, late: false })))
      .finally(() => clearTimeout(timer));
    return () => {
      newest.current++;
      clearTimeout(timer);
    };
  }, [transport, method, key]);
  return asked;
}

/** What the kernel refused last, until the trait passes again or 8 s have gone. */
export function useRefusal(): string | null {
  const { transport } = usePlace();
  const [message, setMessage] = useState<string | null>(null);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const unsubscribe = transport.onRefused((text) => {
      setMessage(text);
      clearTimeout(timer);
      timer = setTimeout(() => setMessage(null), 8_000);
    });
    return () => {
      clearTimeout(timer);
      unsubscribe();
    };
  }, [transport]);
  return message;
}
