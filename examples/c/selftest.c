/* Prints the hash of `fogzo selftest`: FNV-1a over perturbed codes of fixed cases, equal on every machine.
 * gcc selftest.c -I P/include -L P/lib -lfogzo -lm -o selftest && LD_LIBRARY_PATH=P/lib ./selftest */
#include <fogzo/fogzo.h>
#include <math.h>
#include <stdio.h>

enum { MOST = 2 * 16411, PROBES = 2, SIDES = 2, TABLE = 32768 };
static const int64_t shapes[][2] = {{1, 1}, {3, 127}, {5, 129}, {7, 1031}, {2, 16411}};
static const int grid_bits_surrogate[][3] = {
    {FOGZO_SIGN, 1, FOGZO_HARDTANH},     {FOGZO_SIGN, 1, FOGZO_TANH},         {FOGZO_SIGN, 1, FOGZO_APPROX_SIGN},
    {FOGZO_TERNARY, 2, FOGZO_CLIPPED},   {FOGZO_MID_RISE, 2, FOGZO_IDENTITY}, {FOGZO_MID_RISE, 3, FOGZO_CLIPPED},
    {FOGZO_MID_TREAD, 2, FOGZO_CLIPPED}, {FOGZO_MID_TREAD, 4, FOGZO_TRUST},   {FOGZO_MID_TREAD, 8, FOGZO_CLIPPED}};
static const float of_rows[7] = {0.25f, 0.5f, 0.75f, 0.25f, 0.5f, 0.75f, 0.25f}, of_tensor = 0.5f;
static float table[TABLE], in[2][MOST];
static uint8_t codes[PROBES * SIDES * MOST];

int main(void) {
    uint64_t hash = 0xCBF29CE484222325, seed = 0x0123456789ABCDEF;
    for (int k = 0; k < TABLE; ++k)
        table[k] = (float)atanh((2 * k + 1) / 65536.0);
    for (int n = 0, status = FOGZO_OK; n < 5 * 9 * 2; ++n) { /* noise runs fastest, then pairs, then shapes */
        const int64_t rows = shapes[n / 18][0], cols = shapes[n / 18][1], size = rows * cols;
        const int *pair = grid_bits_surrogate[n / 2 % 9], odd = n % 2;
        for (int i = 0; i < 2 && status == FOGZO_OK; ++i) {
            status = fogzo_cpu_noise(in[i], NULL, rows, cols, n, cols + n, FOGZO_IDENTITY, FOGZO_PUBLISHED, seed, n, 0,
                                     i, 1);
            for (int64_t k = 0; k < size; ++k)
                in[i][k] *= 2.0f;
        }
        if (status == FOGZO_OK)
            status = fogzo_cpu_perturb_quantize(in[0], in[1], odd ? of_rows : &of_tensor, codes, NULL, table, rows,
                                                cols, odd ? rows : 1, 1, n, cols + n, pair[0], pair[1], pair[2], odd,
                                                FOGZO_CODES, SIDES, PROBES, 0, seed, n, 1, 0.25, 8.0f, 1);
        if (status != FOGZO_OK)
            return fprintf(stderr, "case %d: %s\n", n, fogzo_status_text(status)), 1;
        for (int64_t k = 0; k < PROBES * SIDES * size; ++k)
            hash = (hash ^ codes[k]) * 0x100000001B3;
    }
    return printf("%016llx\n", (unsigned long long)hash) < 0;
}
