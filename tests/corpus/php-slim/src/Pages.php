<?php

declare(strict_types=1);

namespace Aviary;

use DateTimeImmutable;
use DateTimeZone;
use Exception;
use IntlDateFormatter;
use NumberFormatter;
use Parsedown;
use Slim\Http\Request;
use Slim\Http\Response;
use Twig\Environment;

final class Pages
{
    public function __construct(private Birds $birds, private Environment $twig, private string $root)
    {
    }

    public function index(Request $request, Response $response): Response
    {
        $locale = $request->getQueryParam('locale', 'nb_NO');
        return $response->write($this->twig->render('birds.html.twig', [
            'birds' => $this->birds->all($locale),
            'locale' => $locale,
        ]));
    }

    /** A bird as somebody with ?locale= and ?tz= would write it down. */
    public function bird(Request $request, Response $response, array $arguments): Response
    {
        $bird = $this->birds->find((int) $arguments['id']);
        if ($bird === null) {
            return $response->withJson(['error' => 'no such bird'], 404);
        }
        $locale = $request->getQueryParam('locale', 'nb_NO');
        try {
            $zone = new DateTimeZone($request->getQueryParam('tz', 'Europe/Oslo'));
        } catch (Exception $exception) {
            return $response->withJson(['error' => $exception->getMessage()], 400);
        }
        $ringed = (new DateTimeImmutable($bird['ringed']))->setTimezone($zone);
        $dates = new IntlDateFormatter($locale, IntlDateFormatter::FULL, IntlDateFormatter::SHORT, $zone);
        $numbers = new NumberFormatter($locale, NumberFormatter::DECIMAL);
        return $response->withJson([
            'name' => mb_strtoupper($bird['name']),
            'latin' => $bird['latin'],
            'grams' => $numbers->format($bird['grams']),
            'ringed' => $ringed->format('Y-m-d H:i T'),
            'ringed_in_words' => $dates->format($ringed),
        ], 200, JSON_UNESCAPED_UNICODE);
    }

    public function guide(Request $request, Response $response): Response
    {
        return $response->write((new Parsedown())->text(file_get_contents($this->root . '/data/guide.md')));
    }

    /** A bar of the bird's weight, drawn with GD. */
    public function weight(Request $request, Response $response, array $arguments): Response
    {
        $bird = $this->birds->find((int) $arguments['id']);
        if ($bird === null) {
            return $response->withJson(['error' => 'no such bird'], 404);
        }
        $image = imagecreatetruecolor(200, 24);
        imagefill($image, 0, 0, imagecolorallocate($image, 255, 255, 255));
        $width = (int) min(190, 20 * log(1 + $bird['grams']));
        imagefilledrectangle($image, 4, 4, $width, 20, imagecolorallocate($image, 51, 102, 153));
        imagestring($image, 3, 8, 5, $bird['grams'] . ' g', imagecolorallocate($image, 255, 255, 255));
        ob_start();
        imagepng($image);
        return $response->withHeader('Content-Type', 'image/png')->write(ob_get_clean());
    }

    /** Who runs this, and whether the system's certificate authorities are there and used. */
    public function about(Request $request, Response $response): Response
    {
        $user = posix_getpwuid(posix_geteuid());
        $locations = openssl_get_cert_locations();
        $known = file_get_contents($locations['default_cert_dir'] . '/ISRG_Root_X1.pem');
        return $response->withJson([
            'user' => $user['name'],
            'home' => $user['dir'],
            'isrg_root_x1_trusted' => openssl_x509_checkpurpose($known, X509_PURPOSE_ANY) === true,
            'stranger_trusted' => openssl_x509_checkpurpose($this->stranger(), X509_PURPOSE_ANY) === true,
        ]);
    }

    /** A certificate that nobody else has signed. */
    private function stranger(): string
    {
        $key = openssl_pkey_new(['private_key_type' => OPENSSL_KEYTYPE_EC, 'curve_name' => 'prime256v1']);
        $request = openssl_csr_new(['commonName' => 'localhost'], $key, ['digest_alg' => 'sha256']);
        openssl_x509_export(openssl_csr_sign($request, null, $key, 1, ['digest_alg' => 'sha256']), $certificate);
        return $certificate;
    }
}
