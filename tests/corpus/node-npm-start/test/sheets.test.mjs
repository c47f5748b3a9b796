import { expect } from 'chai';
import { totals } from '#lib/sheets';

describe('totals', () => {
  it('knows that an hour is missing in spring', () => {
    expect(totals('Europe/Berlin')[0].hours).to.equal(7.25);
    expect(totals('UTC')[0].hours).to.equal(8.25);
  });
});
