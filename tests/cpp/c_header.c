/* The public header compiles as C, and a launcher can be called from it. */
#include <string.h>

#include "fogzo/fogzo.h"

int c_header_works(void) {
    const float w[3] = {0.2f, -3.0f, 0.7f};
    const float scale = 0.5f;
    float out[3];
    int status = fogzo_cpu_fake_quantize(w, &scale, out, 1, 3, 1, 1, FOGZO_TERNARY, 0, 1);
    return status == FOGZO_OK && out[0] == 0.0f && out[1] == -0.5f && out[2] == 0.5f &&
           strcmp(fogzo_status_text(FOGZO_OK), "ok") == 0;
}
