export interface Reading {
  at: string;
  celsius: number;
}

export async function fetchReadings(): Promise<Reading[]> {
  const response = await fetch('/data/readings.json');
  if (!response.ok) {
    throw new Error(`no readings: ${response.status}`);
  }
  return response.json();
}

export function average(readings: Reading[]): number {
  return readings.reduce((sum, reading) => sum + reading.celsius, 0) / Math.max(readings.length, 1);
}
