/* tidecalc: sums of harmonic constituents, and where the sum turns.
 *
 * Reads from standard input: START STEP COUNT MEAN (hours, hours, number, metres), then a line
 * AMPLITUDE SPEED PHASE for each constituent. Writes JSON. The turning points are roots of the
 * derivative, found by GSL's Brent solver between two samples where it changes its sign.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gsl/gsl_errno.h>
#include <gsl/gsl_roots.h>
#include <gsl/gsl_version.h>
#include <jansson.h>

#define MOST 64
#define DEGREE (M_PI / 180.0)

struct tide {
    double mean;
    size_t count;
    struct { double amplitude, speed, phase; } wave[MOST];
};

static double height(const struct tide *tide, double hour)
{
    double sum = tide->mean;
    for (size_t i = 0; i < tide->count; i++)
        sum += tide->wave[i].amplitude * cos((tide->wave[i].speed * hour - tide->wave[i].phase) * DEGREE);
    return sum;
}

static double slope(double hour, void *opaque)
{
    const struct tide *tide = opaque;
    double sum = 0;
    for (size_t i = 0; i < tide->count; i++)
        sum -= tide->wave[i].amplitude * tide->wave[i].speed * DEGREE
             * sin((tide->wave[i].speed * hour - tide->wave[i].phase) * DEGREE);
    return sum;
}

static double turning_point(struct tide *tide, double low, double high)
{
    gsl_function function = {slope, tide};
    gsl_root_fsolver *solver = gsl_root_fsolver_alloc(gsl_root_fsolver_brent);
    gsl_root_fsolver_set(solver, &function, low, high);
    double root = low;
    for (int round = 0; round < 60; round++) {
        gsl_root_fsolver_iterate(solver);
        root = gsl_root_fsolver_root(solver);
        if (gsl_root_test_interval(gsl_root_fsolver_x_lower(solver), gsl_root_fsolver_x_upper(solver), 1e-7, 0)
            == GSL_SUCCESS)
            break;
    }
    gsl_root_fsolver_free(solver);
    return root;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        printf("tidecalc 1.4, GSL %s, jansson %s\n", gsl_version, jansson_version_str());
        return 0;
    }
    if (argc != 2 || strcmp(argv[1], "-") != 0) {
        fprintf(stderr, "usage: tidecalc - < constituents\n");
        return 2;
    }
    struct tide tide = {0};
    double start, step;
    int samples;
    if (scanf("%lf %lf %d %lf", &start, &step, &samples, &tide.mean) != 4 || samples < 1 || samples > 100000) {
        fprintf(stderr, "tidecalc: expected START STEP COUNT MEAN\n");
        return 1;
    }
    while (tide.count < MOST
           && scanf("%lf %lf %lf", &tide.wave[tide.count].amplitude, &tide.wave[tide.count].speed,
                    &tide.wave[tide.count].phase) == 3)
        tide.count++;

    json_t *heights = json_array(), *turns = json_array();
    for (int i = 0; i < samples; i++) {
        double hour = start + i * step;
        json_array_append_new(heights, json_real(round(height(&tide, hour) * 1000) / 1000));
        double before = slope(hour, &tide), after = slope(hour + step, &tide);
        if (before * after < 0) {
            double turn = turning_point(&tide, hour, hour + step);
            json_array_append_new(turns, json_pack("{s:s, s:f, s:f}", "kind", before > 0 ? "high" : "low", "hour",
                                                   turn, "height", height(&tide, turn)));
        }
    }
    json_t *answer = json_pack("{s:o, s:o}", "heights", heights, "turns", turns);
    json_dumpf(answer, stdout, JSON_COMPACT | JSON_REAL_PRECISION(12));
    json_decref(answer);
    return 0;
}
