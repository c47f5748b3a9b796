import i18next, { TFunction } from 'i18next';
import Backend from 'i18next-fs-backend';
import { fileURLToPath } from 'node:url';

const loaded = i18next.use(Backend).init({
  fallbackLng: 'en',
  load: 'languageOnly',
  interpolation: { escapeValue: false },
  backend: { loadPath: fileURLToPath(new URL('../locales/{{lng}}.json', import.meta.url)) },
});

export async function inLanguage(language: string): Promise<TFunction> {
  await loaded;
  await i18next.loadLanguages(language);
  return i18next.getFixedT(language);
}
