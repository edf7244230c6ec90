// Numbers as they are read: three significant digits, grouped counts, units beside them.

const MINUS = "\u2212";

/** Three significant digits: 0.0123, 4.57, 123, 1,230, 1.2e-7. */
export function three(value: number | null | undefined): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
  if (!Number.isFinite(value)) return value > 0 ? "\u221e" : `${MINUS}\u221e`;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 1e-4) return value.toExponential(1).replace("-", MINUS);
  const text = size >= 1000 ? count(Math.round(size)) : Number(size.toPrecision(3)).toString();
  return value < 0 ? MINUS + text : text;
}

/** As `three`, with a plus where it is positive. */
export function signed(value: number): string {
  return value > 0 ? `+${three(value)}` : three(value);
}

/** A share as a percentage: 0.21 %, 31 %, below 0.001 %. */
export function percent(share: number | null | undefined): string {
  if (share === null || share === undefined || Number.isNaN(share)) return "\u2013";
  const value = share * 100;
  if (value > 0 && value < 0.001) return "< 0.001 %";
  return `${value >= 10 ? Number(value.toFixed(1)) : Number(value.toPrecision(2))} %`;
}

/** 200,000 */
export function count(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** 38k, 1.2M: for rates and totals where the last digits do not matter. */
export function short(value: number): string {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (value >= 1e3) return `${Number((value / 1e3).toPrecision(3))}k`;
  return Number(value.toPrecision(3)).toString();
}

/** 15 s, 3 min 20 s, 2 h 5 min. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
