import { useEffect, useState } from 'react';
import { Line, LineChart, ResponsiveContainer, Tooltip, XAxis, YAxis } from 'recharts';
import { fetchReadings, Reading } from '../readings';

export default function History() {
  const [readings, setReadings] = useState<Reading[]>([]);

  useEffect(() => {
    fetchReadings().then(setReadings, () => setReadings([]));
  }, []);

  return (
    <ResponsiveContainer width="100%" height={320}>
      <LineChart data={readings}>
        <XAxis dataKey="at" />
        <YAxis unit="°C" />
        <Tooltip />
        <Line type="monotone" dataKey="celsius" dot={false} />
      </LineChart>
    </ResponsiveContainer>
  );
}
