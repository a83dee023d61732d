// What both Python modules do with what Python hands over: addresses and tensors as integers.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <vector>

#include "fogzo/tensor.h"

namespace py = pybind11;

using Address = uint64_t;
using Release = py::call_guard<py::gil_scoped_release>;

template <class T> const T* in(Address address) { return reinterpret_cast<const T*>(address); }
template <class T> T* out(Address address) { return reinterpret_cast<T*>(address); }

// The members of fogzo_tensor in their order.
using Row = std::array<int64_t, 15>;

inline std::vector<fogzo_tensor> tensors_of(const std::vector<Row>& rows) {
    std::vector<fogzo_tensor> tensors;
    for (const Row& r : rows) {
        const auto number = [&](int i) { return static_cast<int>(r[static_cast<size_t>(i)]); };
        tensors.push_back({in<float>(static_cast<Address>(r[0])), in<float>(static_cast<Address>(r[1])),
                           in<float>(static_cast<Address>(r[2])), out<void>(static_cast<Address>(r[3])),
                           out<int64_t>(static_cast<Address>(r[4])), r[5], r[6], r[7], r[8], r[9], r[10], r[11],
                           number(12), number(13), number(14)});
    }
    return tensors;
}
