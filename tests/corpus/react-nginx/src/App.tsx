import { lazy, Suspense } from 'react';
import { Link, Route, Routes } from 'react-router-dom';
import { Today } from './pages/Today';

const History = lazy(() => import('./pages/History'));

export function App() {
  return (
    <main className="mx-auto max-w-2xl p-8">
      <nav className="flex gap-4 border-b pb-2">
        <Link to="/">Today</Link>
        <Link to="/history">History</Link>
      </nav>
      <Suspense fallback={<p>Loading the charts…</p>}>
        <Routes>
          <Route path="/" element={<Today />} />
          <Route path="/history" element={<History />} />
          <Route path="*" element={<p>There is no such page.</p>} />
        </Routes>
      </Suspense>
    </main>
  );
}
