<?php

declare(strict_types=1);

// Fills data/birds.sqlite from data/birds.csv.

$folder = dirname(__DIR__) . '/data';
$database = new PDO("sqlite:$folder/birds.sqlite");
$database->exec('DROP TABLE IF EXISTS bird');
$database->exec('CREATE TABLE bird (id INTEGER PRIMARY KEY, name TEXT, latin TEXT, grams REAL, ringed TEXT)');
$insert = $database->prepare('INSERT INTO bird (id, name, latin, grams, ringed) VALUES (?, ?, ?, ?, ?)');

$file = fopen("$folder/birds.csv", 'r');
fgetcsv($file);
while (($row = fgetcsv($file)) !== false) {
    $insert->execute($row);
}
echo $database->query('SELECT count(*) FROM bird')->fetchColumn(), " birds\n";
