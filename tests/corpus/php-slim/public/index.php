<?php

declare(strict_types=1);

use Aviary\Birds;
use Aviary\Pages;
use Monolog\Handler\StreamHandler;
use Monolog\Logger;
use Slim\App;
use Slim\Container;
use Slim\Http\Request;
use Slim\Http\Response;
use Twig\Environment;
use Twig\Loader\FilesystemLoader;

error_reporting(E_ALL & ~E_DEPRECATED);
$root = dirname(__DIR__);
require $root . '/vendor/autoload.php';

$container = new Container();
$container['logger'] = function (): Logger {
    return new Logger('aviary', [new StreamHandler('php://stderr', Logger::INFO)]);
};
$container['pages'] = function () use ($root): Pages {
    $twig = new Environment(new FilesystemLoader($root . '/templates'), ['strict_variables' => true]);
    return new Pages(new Birds($root . '/data/birds.sqlite'), $twig, $root);
};
$container['notFoundHandler'] = function (): callable {
    return function (Request $request, Response $response): Response {
        return $response->withJson(['error' => 'nothing at ' . $request->getUri()->getPath()], 404, JSON_UNESCAPED_SLASHES);
    };
};

$app = new App($container);
$app->add(function (Request $request, Response $response, callable $next) {
    $answer = $next($request, $response);
    $this->get('logger')->info($request->getUri()->getPath(), ['status' => $answer->getStatusCode()]);
    return $answer;
});
$app->get('/', 'pages:index');
$app->get('/birds/{id:[0-9]+}', 'pages:bird');
$app->get('/birds/{id:[0-9]+}/weight', 'pages:weight');
$app->get('/guide', 'pages:guide');
$app->get('/about', 'pages:about');
$app->run();
