<?php

declare(strict_types=1);

namespace Aviary;

use Collator;
use PDO;

final class Birds
{
    private PDO $database;

    public function __construct(string $file)
    {
        $this->database = new PDO("sqlite:$file", options: [
            PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
            PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC,
        ]);
    }

    /** All birds, in the alphabetical order of a locale. */
    public function all(string $locale): array
    {
        $birds = $this->database->query('SELECT * FROM bird')->fetchAll();
        $collator = new Collator($locale);
        usort($birds, fn (array $a, array $b) => $collator->compare($a['name'], $b['name']));
        return $birds;
    }

    public function find(int $id): ?array
    {
        $query = $this->database->prepare('SELECT * FROM bird WHERE id = ?');
        $query->execute([$id]);
        return $query->fetch() ?: null;
    }
}
