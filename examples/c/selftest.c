/* Prints the hash of `fogzo selftest`: FNV-1a over perturbed codes of fixed cases, equal on every machine.
 * gcc selftest.c -I P/include -L P/lib -lfogzo -lm -o selftest && LD_LIBRARY_PATH=P/lib ./selftest */
#include <fogzo/fogzo.h>
#include <math.h>
#include <stdio.h>

enum { MOST = 2 * 16411, PROBES = 2, SIDES = 2, TABLE = 32768 };
static const int64_t shapes[][2] = {{1, 1}, {3, 127}, {5, 129}, {7, 1031}, {2, 16411}};
static const int pairs[][3] = {
    /* grid, bits, surrogate */
    {FOGZO_SIGN, 1, FOGZO_HARDTANH},     {FOGZO_SIGN, 1, FOGZO_TANH},         {FOGZO_SIGN, 1, FOGZO_APPROX_SIGN},
    {FOGZO_TERNARY, 2, FOGZO_CLIPPED},   {FOGZO_MID_RISE, 2, FOGZO_IDENTITY}, {FOGZO_MID_RISE, 3, FOGZO_CLIPPED},
    {FOGZO_MID_TREAD, 2, FOGZO_CLIPPED}, {FOGZO_MID_TREAD, 4, FOGZO_TRUST},   {FOGZO_MID_TREAD, 8, FOGZO_CLIPPED}};
static const uint64_t seed = 0x0123456789ABCDEF;
static float table[TABLE], inputs[2][MOST], scale[7];
static uint8_t codes[PROBES * SIDES * MOST];

static int run(int64_t number, int64_t rows, int64_t cols, const int* pair, int noise) {
    const int64_t pitch = cols + number, size = rows * cols, scales = number % 2 != 0 ? rows : 1;
    int status = FOGZO_OK;
    for (int64_t probe = 0; probe < 2 && status == FOGZO_OK; ++probe) { /* the weight and its gradient */
        status = fogzo_cpu_noise(inputs[probe], NULL, rows, cols, number, pitch, FOGZO_IDENTITY, FOGZO_PUBLISHED, seed,
                                 number, 0, probe, 1);
        for (int64_t k = 0; k < size; ++k)
            inputs[probe][k] *= 2.0f;
    }
    for (int64_t r = 0; r < scales; ++r)
        scale[r] = number % 2 != 0 ? (float)(r % 3 + 1) / 4.0f : 0.5f;
    if (status != FOGZO_OK)
        return status;
    return fogzo_cpu_perturb_quantize(inputs[0], inputs[1], scale, codes, NULL, table, rows, cols, scales, 1, number,
                                      pitch, pair[0], pair[1], pair[2], noise, FOGZO_CODES, SIDES, PROBES, 0, seed,
                                      number, 1, 0.25, 8.0f, 1);
}

int main(void) {
    uint64_t hash = 0xCBF29CE484222325;
    for (int k = 0; k < TABLE; ++k)
        table[k] = (float)atanh((2 * k + 1) / 65536.0);
    for (int number = 0; number < 5 * 9 * 2; ++number) { /* noise runs fastest, then pairs, then shapes */
        const int64_t *shape = shapes[number / 18], size = PROBES * SIDES * shape[0] * shape[1];
        const int status = run(number, shape[0], shape[1], pairs[number / 2 % 9], number % 2);
        if (status != FOGZO_OK)
            return fprintf(stderr, "case %d: %s\n", number, fogzo_status_text(status)), 1;
        for (int64_t k = 0; k < size; ++k)
            hash = (hash ^ codes[k]) * 0x100000001B3;
    }
    return printf("%016llx\n", (unsigned long long)hash) < 0;
}
