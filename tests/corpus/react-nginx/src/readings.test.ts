import { expect, test } from 'vitest';
import { average } from './readings';

test('average of nothing is zero', () => {
  expect(average([])).toBe(0);
  expect(average([{ at: '', celsius: 2 }, { at: '', celsius: 4 }])).toBe(3);
});
