// Runs CUDA kernels, compiled as C++, on the host: a grid block by block, the threads of a block as fibers that
// change only where they wait for each other. What a kernel reads before another thread wrote it therefore depends
// on the order of the threads alone, and that order is chosen here.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace cuda_on_host {

struct Index3 {
    unsigned x, y, z;
};

// Where a kernel waits, for messages, and so that all threads of a block wait at one barrier.
struct Site {
    const char* file;
    int line;
};

constexpr int kWarp = 32;
constexpr unsigned char kPoison = 0xA5;  // what memory holds that nobody has written

// kRotating: each block of each launch takes the next of the other three.
enum Order : int { kForward = 0, kReverse = 1, kShuffled = 2, kRotating = 3 };

void set_order(int order);

// Compute capability of the device that kernels believe in, 10 times: 90 unless another was set.
int capability();
void set_capability(int capability);

// Runs body(argument) once for each thread; false where threads wait that can never go on.
bool run_grid(const char* name, Index3 grid, Index3 block, size_t shared_bytes, void (*body)(void*), void* argument);

// Kernels that run_grid has run, "name\n" each, and what went wrong last, "" where nothing has.
const char* kernels_run();
const char* last_failure();
void forget_failure();

// Of the running block: as many bytes as the launch asked for, kPoison at first.
void* dynamic_shared();

void wait_for_block(Site site);

// Ends the launch: "thread 7 <does what no GPU allows>".
void give_up(const char* what);

// Waits for the lanes of the mask that exist and have not ended; `all` gets 32 * size bytes, kPoison for the others.
void exchange(uint32_t mask, const void* mine, size_t size, void* all, Site site);

// The values of all lanes of the warp: what warp instructions are made of.
template <class T> struct Lanes {
    T of[kWarp];
};
template <class T> Lanes<T> gather(uint32_t mask, const T& mine, Site site) {
    Lanes<T> lanes;
    exchange(mask, &mine, sizeof(T), lanes.of, site);
    return lanes;
}

extern Index3 thread_index, block_index, block_size, grid_size;
unsigned lane_number();
uint64_t block_number();  // of all blocks that were ever run, from 1

}  // namespace cuda_on_host
