import clsx from 'clsx';
import { format, parseISO } from 'date-fns';
import { useEffect, useState } from 'react';
import { average, fetchReadings, Reading } from '../readings';

export function Today() {
  const [readings, setReadings] = useState<Reading[]>([]);
  const [problem, setProblem] = useState<string>();

  useEffect(() => {
    fetchReadings().then(setReadings, (error: Error) => setProblem(error.message));
  }, []);

  if (problem) {
    return <p role="alert">{problem}</p>;
  }
  const mean = average(readings);
  return (
    <ul className="mt-4 space-y-1">
      {readings.map(({ at, celsius }) => (
        <li key={at} className={clsx('tabular-nums', celsius > mean && 'reading-above-average')}>
          {format(parseISO(at), 'HH:mm')} {celsius.toFixed(1)} °C
        </li>
      ))}
    </ul>
  );
}
