#include "emulator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <list>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#error "the emulator of CUDA kernels changes fibers in x86-64 machine code"
#endif

// Saves the registers that a call keeps, and goes on where the other stack stopped.
extern "C" void cuda_on_host_switch(void** save, void* load);
asm(R"(
.text
.globl cuda_on_host_switch
.hidden cuda_on_host_switch
.type cuda_on_host_switch, @function
cuda_on_host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cuda_on_host_switch, . - cuda_on_host_switch
)");

namespace cuda_on_host {

Index3 thread_index, block_index, block_size, grid_size;

namespace {

constexpr size_t kStack = 256 * 1024;
constexpr size_t kMostBytes = 128;  // of one lane in an exchange

enum class State { kReady, kAtBarrier, kInExchange, kEnded };

// One warp instruction under way.
struct Exchange {
    uint32_t mask;
    uint32_t arrived;
    uint32_t unread;
    size_t size;
    bool complete;
    alignas(16) unsigned char data[kWarp][kMostBytes];
};

struct Fiber {
    void* stack = nullptr;
    void* pointer = nullptr;  // of its stack
    void* fake_stack = nullptr;
    unsigned number = 0;
    Index3 index = {};
    State state = State::kEnded;
    Site site = {};
    Exchange* open = nullptr;
};

std::mutex one_launch;
std::vector<Fiber> fibers;  // of the largest block so far
unsigned threads = 0;       // of this block
Fiber* running = nullptr;
void* host_pointer = nullptr;
void* host_fake_stack = nullptr;
const void* host_bottom = nullptr;
size_t host_bytes = 0;
void (*kernel_body)(void*) = nullptr;
void* kernel_argument = nullptr;
std::vector<std::list<Exchange>> exchanges;  // of each warp
std::vector<unsigned char> shared;
std::string failure;
std::set<std::string> names;
std::string names_text;
int order_asked = kRotating;
int capability_asked = 90;
uint64_t blocks_run = 0;

void fail(const std::string& text) {
    if (failure.empty()) {
        failure = text;
    }
}

std::string place(Site site) { return std::string(site.file) + ":" + std::to_string(site.line); }

std::string thread_name(const Fiber& fiber) { return "thread " + std::to_string(fiber.number); }

void to_host() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&running->fake_stack, host_bottom, host_bytes);
#endif
    Fiber* me = running;
    cuda_on_host_switch(&me->pointer, host_pointer);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(running->fake_stack, &host_bottom, &host_bytes);
#endif
}

// A fiber lives on from block to block, so that its first frames never end.
void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &host_bottom, &host_bytes);
#endif
    for (;;) {
        kernel_body(kernel_argument);
        running->state = State::kEnded;
        to_host();
    }
}

void prepare(Fiber& fiber) {
    if (fiber.stack == nullptr) {
        fiber.stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (fiber.stack == MAP_FAILED) {
            std::perror("cuda_on_host: mmap");
            std::abort();
        }
        void** top = reinterpret_cast<void**>(static_cast<char*>(fiber.stack) + kStack) - 2;
        *top = reinterpret_cast<void*>(fiber_main);  // returned to, with the stack as a call leaves it
        fiber.pointer = top - 6;
    }
}

// Fibers that wait for ever are given up with all that is on their stacks.
void abandon() {
    for (Fiber& fiber : fibers) {
        if (fiber.stack != nullptr) {
#if defined(__SANITIZE_ADDRESS__)
            ASAN_UNPOISON_MEMORY_REGION(fiber.stack, kStack);
#endif
            munmap(fiber.stack, kStack);
        }
    }
    fibers.clear();
    exchanges.clear();
}

void resume(Fiber& fiber) {
    running = &fiber;
    thread_index = fiber.index;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&host_fake_stack, fiber.stack, kStack);
#endif
    cuda_on_host_switch(&host_pointer, fiber.pointer);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(host_fake_stack, nullptr, nullptr);
#endif
    running = nullptr;
}

uint32_t lanes_of(unsigned warp, State state, bool equal) {
    uint32_t lanes = 0;
    for (unsigned lane = 0; lane < kWarp && warp * kWarp + lane < threads; ++lane) {
        lanes |= static_cast<uint32_t>((fibers[warp * kWarp + lane].state == state) == equal) << lane;
    }
    return lanes;
}

void complete_where_all_arrived(unsigned warp) {
    const uint32_t alive = lanes_of(warp, State::kEnded, false);
    for (Exchange& one : exchanges[warp]) {
        if (one.complete || (one.mask & alive & ~one.arrived) != 0) {
            continue;
        }
        one.complete = true;
        one.unread = one.arrived;
        for (unsigned lane = 0; lane < kWarp; ++lane) {
            if ((one.arrived >> lane & 1u) != 0) {
                fibers[warp * kWarp + lane].state = State::kReady;
            }
        }
    }
}

bool release_barrier() {
    const Fiber& first = fibers[0];
    for (unsigned t = 0; t < threads; ++t) {
        const Fiber& fiber = fibers[t];
        if (fiber.state == State::kEnded) {
            const auto waits = std::find_if(fibers.begin(), fibers.begin() + threads,
                                            [](const Fiber& f) { return f.state != State::kEnded; });
            fail(thread_name(*waits) + " waits at " + place(waits->site) + ", but " + thread_name(fiber) +
                 " has ended");
            return false;
        }
        if (fiber.state == State::kInExchange) {
            fail(thread_name(fiber) + " waits at " + place(fiber.site) + " for lanes that never arrive");
            return false;
        }
        if (fiber.site.line != first.site.line || std::strcmp(fiber.site.file, first.site.file) != 0) {
            fail("thread 0 waits at " + place(first.site) + ", but " + thread_name(fiber) + " at " + place(fiber.site));
            return false;
        }
    }
    for (unsigned t = 0; t < threads; ++t) {
        fibers[t].state = State::kReady;
    }
    return true;
}

bool run_block(size_t shared_bytes) {
    shared.assign(shared_bytes + 64, kPoison);
    exchanges.assign((threads + kWarp - 1) / kWarp, {});
    const int order = order_asked == kRotating ? static_cast<int>(blocks_run % 3) : order_asked;
    std::mt19937 random(static_cast<unsigned>(blocks_run++));
    std::vector<unsigned> turns(threads);
    for (unsigned t = 0; t < threads; ++t) {
        turns[t] = order == kReverse ? threads - 1 - t : t;
        fibers[t].number = t;
        fibers[t].index = {t % block_size.x, t / block_size.x % block_size.y, t / (block_size.x * block_size.y)};
        fibers[t].state = State::kReady;
        prepare(fibers[t]);
    }
    unsigned left = threads;
    while (left > 0) {
        bool moved = false;
        if (order == kShuffled) {
            std::shuffle(turns.begin(), turns.end(), random);
        }
        for (const unsigned t : turns) {
            Fiber& fiber = fibers[t];
            if (fiber.state != State::kReady) {
                continue;
            }
            resume(fiber);
            moved = true;
            if (!failure.empty()) {
                return false;
            }
            if (fiber.state == State::kEnded) {
                --left;
                complete_where_all_arrived(t / kWarp);
            }
        }
        if (!moved && !release_barrier()) {
            return false;
        }
    }
    return true;
}

// "... [with auto kernel = fogzo::name<...>; ...]" -> "name".
std::string short_name(const std::string& text) {
    const std::string mark = "kernel = ";
    const size_t begin = text.find(mark);
    std::string name = begin == std::string::npos ? text : text.substr(begin + mark.size());
    name = name.substr(0, name.find_first_of("<(;]", name.compare(0, 1, "(") == 0 ? 1 : 0));
    name = name.substr(name.find_last_of(":&*( ") == std::string::npos ? 0 : name.find_last_of(":&*( ") + 1);
    return name;
}

}  // namespace

void set_order(int order) { order_asked = order; }

int capability() { return capability_asked; }
void set_capability(int capability) { capability_asked = capability; }

bool run_grid(const char* name, Index3 grid, Index3 block, size_t shared_bytes, void (*body)(void*), void* argument) {
    const std::lock_guard<std::mutex> lock(one_launch);
    failure.clear();
    names.insert(short_name(name));
    threads = block.x * block.y * block.z;
    if (threads == 0 || threads > 1024 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 ||
        grid.z > 65535 || grid.x > 0x7FFFFFFFu || shared_bytes > 227 * 1024) {
        fail("the launch has a grid, a block or shared memory that no GPU takes");
    }
    grid_size = grid;
    block_size = block;
    kernel_body = body;
    kernel_argument = argument;
    if (fibers.size() < threads && failure.empty()) {
        fibers.resize(threads);
    }
    for (unsigned z = 0; z < grid.z && failure.empty(); ++z) {
        for (unsigned y = 0; y < grid.y && failure.empty(); ++y) {
            for (unsigned x = 0; x < grid.x && failure.empty(); ++x) {
                block_index = {x, y, z};
                if (!run_block(shared_bytes)) {
                    abandon();
                }
            }
        }
    }
    if (failure.empty()) {
        return true;
    }
    failure = short_name(name) + ": " + failure;
    std::fprintf(stderr, "cuda_on_host: %s\n", failure.c_str());
    return false;
}

const char* kernels_run() {
    names_text.clear();
    for (const std::string& name : names) {
        names_text += name + "\n";
    }
    return names_text.c_str();
}

const char* last_failure() { return failure.c_str(); }
void forget_failure() { failure.clear(); }

void* dynamic_shared() {
    const uintptr_t start = reinterpret_cast<uintptr_t>(shared.data());
    return reinterpret_cast<void*>((start + 15) / 16 * 16);
}

void wait_for_block(Site site) {
    running->state = State::kAtBarrier;
    running->site = site;
    to_host();
}

void give_up(const char* what) {
    fail(thread_name(*running) + " " + what);
    running->state = State::kInExchange;
    to_host();
}

void exchange(uint32_t mask, const void* mine, size_t size, void* all, Site site) {
    const unsigned warp = running->number / kWarp;
    const unsigned lane = running->number % kWarp;
    const uint32_t bit = 1u << lane;
    if ((mask & bit) == 0 || size > kMostBytes) {
        give_up(("at " + place(site) + (size > kMostBytes ? " exchanges too many bytes" : " is not in its own mask"))
                    .c_str());
    }
    std::list<Exchange>& open = exchanges[warp];
    auto one = std::find_if(open.begin(), open.end(), [&](const Exchange& e) {
        return !e.complete && e.mask == mask && e.size == size && (e.arrived & bit) == 0;
    });
    if (one == open.end()) {
        open.emplace_back();
        one = std::prev(open.end());
        one->mask = mask;
        one->arrived = 0;
        one->size = size;
        one->complete = false;
        std::memset(one->data, kPoison, sizeof one->data);
    }
    std::memcpy(one->data[lane], mine, size);
    one->arrived |= bit;
    running->state = State::kInExchange;
    running->site = site;
    complete_where_all_arrived(warp);
    if (!one->complete) {
        to_host();
    }
    running->state = State::kReady;
    for (int other = 0; other < kWarp; ++other) {
        std::memcpy(static_cast<unsigned char*>(all) + static_cast<size_t>(other) * size, one->data[other], size);
    }
    one->unread &= ~bit;
    if (one->unread == 0) {
        open.erase(one);
    }
}

unsigned lane_number() { return running->number % kWarp; }

uint64_t block_number() { return blocks_run; }

}  // namespace cuda_on_host

// For Python, through ctypes.
#define CUDA_ON_HOST_EXPORT extern "C" __attribute__((visibility("default")))

CUDA_ON_HOST_EXPORT const char* cuda_on_host_kernels_run() { return cuda_on_host::kernels_run(); }
CUDA_ON_HOST_EXPORT void cuda_on_host_set_capability(int capability) { cuda_on_host::set_capability(capability); }
CUDA_ON_HOST_EXPORT void cuda_on_host_set_order(int order) { cuda_on_host::set_order(order); }
