import ExcelJS from 'exceljs';

export async function workbook(rows) {
  const book = new ExcelJS.Workbook();
  book.created = new Date(0);
  const sheet = book.addWorksheet('hours');
  sheet.columns = [
    { header: 'Person', key: 'person', width: 24 },
    { header: 'Hours', key: 'hours', width: 10 },
  ];
  sheet.addRows(rows);
  return book.xlsx.writeBuffer();
}
