import { readFileSync } from 'node:fs';
import { DateTime, Duration } from 'luxon';
import { parse } from 'yaml';

const file = new URL('../../timesheets.yaml', import.meta.url);
export const sheets = parse(readFileSync(file, 'utf8'));

export function totals(zone) {
  return Object.entries(sheets).map(([person, entries]) => {
    const worked = entries
      .map(({ from, to }) => DateTime.fromISO(to, { zone }).diff(DateTime.fromISO(from, { zone })))
      .reduce((sum, span) => sum.plus(span), Duration.fromMillis(0));
    return { person, hours: worked.as('hours'), first: DateTime.fromISO(entries[0].from, { zone: 'utc' }).setZone(zone).toFormat('cccc HH:mm ZZ') };
  });
}
