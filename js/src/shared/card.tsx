// What is known of the token under the pointer, placed below the line being read, never over it.

import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

const GAP = 6; // px below the token

export function Card({ at, children }: { at: DOMRect; children: ComponentChildren }) {
  const card = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const element = card.current;
    const frame = element?.offsetParent?.getBoundingClientRect();
    if (!element || !frame) return;
    const left = Math.min(at.left - frame.left, frame.width - element.offsetWidth - 4);
    element.style.left = `${Math.max(0, left)}px`;
    element.style.top = `${at.bottom - frame.top + GAP}px`;
  }, [at]);
  return (
    <div class="sw-card" ref={card} role="status">
      {children}
    </div>
  );
}
