// One scale for the whole house. Activations: one hue from nothing to #d9730d (lighter in the dark), opacity
// 0.05 + 0.95 log10(1 + 9 r), which reads better than linear for sparse values. Signed values: orange and blue, zero neutral.

import type { Theme } from "./theme";

type Rgb = readonly [number, number, number];

const GROUND: Record<Theme, Rgb> = { light: [255, 255, 255], dark: [17, 20, 24] };
const ACTIVE: Record<Theme, Rgb> = { light: [217, 115, 13], dark: [232, 138, 48] };
const POSITIVE: Record<Theme, Rgb> = { light: [194, 87, 26], dark: [235, 140, 84] };
const NEGATIVE: Record<Theme, Rgb> = { light: [43, 108, 176], dark: [110, 168, 226] };
// Pure black and white: with these one of the two always reaches a contrast of 4.58, with any softer ink not.
const INK: Rgb = [0, 0, 0];
const PAPER: Rgb = [255, 255, 255];

export type Shade = { background: string; color: string };

/** The share of full colour for a value that is `ratio` of the scale's end; 0 stays empty. */
export function opacity(ratio: number): number {
  if (!(ratio > 0)) return 0;
  return 0.05 + 0.95 * Math.log10(1 + 9 * Math.min(ratio, 1));
}

/** Ground and text for an activation >= 0; `null` where nothing is to be coloured. */
export function activationShade(value: number, max: number, theme: Theme): Shade | null {
  return shade(ACTIVE[theme], opacity(max > 0 ? value / max : 0), theme);
}

/** Ground and text for a signed value; zero is always neutral. */
export function signedShade(value: number, extent: number, theme: Theme): Shade | null {
  const hue = value > 0 ? POSITIVE[theme] : NEGATIVE[theme];
  return shade(hue, opacity(extent > 0 ? Math.abs(value) / extent : 0), theme);
}

function shade(hue: Rgb, alpha: number, theme: Theme): Shade | null {
  if (alpha === 0) return null;
  const ground = GROUND[theme].map((base, i) => Math.round(base + (hue[i]! - base) * alpha)) as unknown as Rgb;
  const text = contrast(ground, INK) >= contrast(ground, PAPER) ? INK : PAPER;
  return { background: css(ground), color: css(text) };
}

/** Black or white, whichever reads better on a colour written as #rrggbb. */
export function inkOn(hex: string): string {
  const ground = [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)) as unknown as Rgb;
  return css(contrast(ground, INK) >= contrast(ground, PAPER) ? INK : PAPER);
}

/** WCAG contrast of two colours, 1 to 21. */
export function contrast(a: Rgb, b: Rgb): number {
  const [bright, dim] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number];
  return (bright + 0.05) / (dim + 0.05);
}

function luminance(colour: Rgb): number {
  const [r, g, b] = colour.map((channel) => {
    const c = channel / 255;
    return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function css(colour: Rgb): string {
  return `rgb(${colour.join(", ")})`;
}
