// Calls that serve many tensors against the single calls, and flips against a plain search.
#include "check.h"
#include "fogzo/cpu.h"
#include "fogzo/grid.h"

using namespace fogzo;

namespace {

constexpr int64_t kRows = 5;
constexpr int64_t kCols = 1100;
constexpr int64_t kSize = kRows * kCols;
constexpr int64_t kProbes = 3;

struct Data {
    std::vector<float> w = some_weights(kSize, 1);
    std::vector<float> grad = some_weights(kSize, 2);
    std::vector<float> scale = std::vector<float>(kRows, 0.3f);
    std::vector<float> differences = some_weights(kProbes, 3);
};

fogzo_tensor tensor_of(const Data& data, int64_t number, void* out, int64_t* flips) {
    const int64_t rows = number % 2 == 0 ? kRows : 1;
    return {data.w.data(), data.grad.data(), data.scale.data(), out, flips,   rows, kSize / rows, 1, 1, 100 * number,
            kSize / rows,  number,           kMidRise,          2,   kClipped};
}

int single(const fogzo_tensor& t) {
    return fogzo_cpu_perturb_quantize(t.w, t.grad, t.scale, t.out, t.flip_count, nullptr, t.rows, t.cols, t.scale_rows,
                                      t.scale_cols, t.offset, t.row_pitch, t.grid, t.bits, t.surrogate, kPublished, 1,
                                      2, kProbes, 4, 99, 7, t.tensor, 0.4, 2.0f, 1);
}

int many(const fogzo_tensor* tensors, int64_t count) {
    return fogzo_cpu_perturb_quantize_many(tensors, count, nullptr, kPublished, 1, 2, kProbes, 4, 99, 7, 0.4, 2.0f, 2);
}

void test_perturb_many(const Data& data) {
    Guarded<uint8_t> first(6 * kSize), second(6 * kSize), one(6 * kSize), two(6 * kSize);
    Guarded<int64_t> flips(6), other_flips(6);
    fogzo_tensor tensors[2] = {tensor_of(data, 1, first.data(), flips.data()),
                               tensor_of(data, 2, second.data(), nullptr)};
    CHECK(many(tensors, 2) == FOGZO_OK);
    CHECK(single(tensor_of(data, 1, one.data(), other_flips.data())) == FOGZO_OK);
    CHECK(single(tensor_of(data, 2, two.data(), nullptr)) == FOGZO_OK);
    CHECK(first == one && second == two && flips == other_flips);
    CHECK(many(nullptr, 0) == FOGZO_OK && many(nullptr, 1) == FOGZO_NULL_POINTER);
    CHECK(many(tensors, -1) == FOGZO_BAD_SIZE);

    Guarded<uint8_t> untouched(6 * kSize);
    tensors[0].out = untouched.data();
    tensors[0].flip_count = nullptr;
    tensors[1].scale_rows = 3;  // the second is broken, so the first is not written either
    CHECK(many(tensors, 2) == FOGZO_BAD_SCALE_SHAPE);
    CHECK(untouched.untouched());
}

void test_assemble_many(const Data& data) {
    Guarded<float> first(kSize), second(kSize), one(kSize);
    const fogzo_tensor tensors[2] = {tensor_of(data, 1, first.data(), nullptr),
                                     tensor_of(data, 2, second.data(), nullptr)};
    CHECK(fogzo_cpu_assemble_gradient_many(tensors, 2, data.differences.data(), nullptr, kPublished, kProbes, 4, 99, 7,
                                           0.4, 2.0f, 2) == FOGZO_OK);
    for (int64_t number = 1; number <= 2; ++number) {
        const fogzo_tensor t = tensor_of(data, number, one.data(), nullptr);
        CHECK(fogzo_cpu_assemble_gradient(t.grad, t.scale, data.differences.data(), one.data(), nullptr, t.rows, t.cols,
                                          t.scale_rows, t.scale_cols, t.offset, t.row_pitch, t.surrogate, kPublished,
                                          kProbes, 4, 99, 7, t.tensor, 0.4, 2.0f, 1) == FOGZO_OK);
        CHECK(one == (number == 1 ? first : second));
    }
}

void test_find_flips(int64_t elements, int64_t capacity, int threads) {
    std::vector<uint8_t> base(static_cast<size_t>(elements), 1);
    std::vector<uint8_t> codes = base;
    codes.insert(codes.end(), base.begin(), base.end());
    std::vector<int64_t> wanted[2];
    for (int64_t k = 0; k < 2 * elements; ++k) {
        if (k % 37 == 5 || k % 64 == 63 || k == elements - 1) {
            codes[static_cast<size_t>(k)] = static_cast<uint8_t>(2 + k % 200);
            wanted[k / elements].push_back(k % elements);
        }
    }
    Guarded<int64_t> index(2 * capacity), count(2);
    Guarded<uint8_t> code(2 * capacity);
    CHECK(fogzo_cpu_find_flips(base.data(), codes.data(), index.data(), code.data(), count.data(), 2, elements,
                               capacity, threads) == FOGZO_OK);
    bool right = index.intact() && code.intact() && count.intact();
    for (int64_t s = 0; s < 2; ++s) {
        const int64_t found = static_cast<int64_t>(wanted[s].size());
        right = right && count[s] == found;
        for (int64_t i = 0; i < capacity; ++i) {
            const int64_t number = i < found ? wanted[s][static_cast<size_t>(i)] : -1;
            const uint8_t changed = i < found ? codes[static_cast<size_t>(s * elements + number)] : 0;
            right = right && index[s * capacity + i] == number && code[s * capacity + i] == changed;
        }
    }
    CHECK(right);
}

}  // namespace

void test_many() {
    const Data data;
    test_perturb_many(data);
    test_assemble_many(data);
    for (const int64_t elements : {1, 7, 8, 9, 64, 1001, 8193, 262143, 600001}) {  // the last in 64 parts at most
        for (const int threads : {1, 2, 5}) {
            test_find_flips(elements, 0, threads);
            test_find_flips(elements, 3, threads);
            test_find_flips(elements, elements, threads);
        }
    }
    int64_t count = 0;
    CHECK(fogzo_cpu_find_flips(nullptr, nullptr, nullptr, nullptr, &count, 1, -1, 0, 1) == FOGZO_BAD_SIZE);
    CHECK(fogzo_cpu_find_flips(nullptr, nullptr, nullptr, nullptr, &count, 1, 8, 0, 1) == FOGZO_NULL_POINTER);
}
