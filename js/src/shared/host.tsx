// A widget from a component: `initialize` owns the transport, `render` only mounts, and nothing lives in the module
// (marimo evaluates it once for many widgets).

import { type ComponentType, createContext, render } from "preact";
import { useCallback, useContext, useEffect, useRef, useState } from "preact/hooks";
import sheet from "./look.css";
import { type Theme, themeOf, watchTheme } from "./theme";
import { type Answer, type Model, type Params, Transport } from "./transport";

interface Place {
  model: Model;
  transport: Transport;
  theme: Theme;
}

const PlaceContext = createContext<Place | null>(null);

export function usePlace(): Place {
  const place = useContext(PlaceContext);
  if (!place) throw new Error("A view was drawn outside of a widget.");
  return place;
}

/** The default export of a widget's bundle. `css` is the widget's own sheet; every rule stands under `.sw-root`. */
export function widget(App: ComponentType, css = "") {
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
        root.className = "sw-root";
        el.append(style, root);
        const draw = (theme: Theme) => {
          root.dataset.theme = theme;
          render(
            <PlaceContext.Provider value={{ model, transport: link, theme }}>
              <App />
            </PlaceContext.Provider>,
            root,
          );
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
  /** No answer for 15 s: the kernel is busy or gone. */
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
    const timer = setTimeout(() => mine() && setAsked((before) => ({ ...before, late: true })), 15_000);
    const show = (answer: Answer<Result>, waiting: boolean) =>
      mine() && setAsked({ answer, error: null, waiting, late: false });
    transport
      .request<Result>(method, JSON.parse(key) as Params, (part) => show(part, true))
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
