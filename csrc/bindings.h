// What the Python modules have in common: pointers as integers, and the parameters of the colour conversions.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <tuple>

#include "colors.h"

namespace liif {
namespace {

using Pointer = uintptr_t;
using Strides = std::tuple<int64_t, int64_t, int64_t>;  // row, column, channel

template <class T>
T* as(Pointer p) {
  return reinterpret_cast<T*>(p);
}

inline void bind_type(pybind11::module_& m) {
  pybind11::enum_<Type>(m, "Type", pybind11::module_local())
      .value("u8", Type::u8)
      .value("u16", Type::u16)
      .value("f32", Type::f32)
      .value("bf16", Type::bf16)
      .value("f16", Type::f16)
      .value("i8", Type::i8);
}

using Component = std::tuple<Pointer, int64_t, int64_t>;  // first sample, row stride, step
using Three = std::array<float, 3>;

inline ColorParams color_params(std::pair<int64_t, int64_t> size, const Component& y, const Component& u, const Component& v,
                                Type sample, int32_t unused, std::pair<bool, bool> between, Pointer rgb, Type rgb_type,
                                const Strides& rgb_strides, const Three& zero, const std::array<Three, 3>& by, const Three& shift,
                                const Three& low, const Three& high) {
  const auto samples = [](const Component& c) { return Samples{as<void>(std::get<0>(c)), std::get<1>(c), std::get<2>(c)}; };
  ColorParams p{};
  std::tie(p.height, p.width) = size;
  p.y = samples(y), p.u = samples(u), p.v = samples(v);
  p.sample = sample, p.unused = unused;
  std::tie(p.between_y, p.between_x) = between;
  p.rgb = as<void>(rgb), p.rgb_type = rgb_type;
  std::tie(p.rgb_row_stride, p.rgb_column_stride, p.rgb_channel_stride) = rgb_strides;
  for (int i = 0; i < 3; ++i) {
    p.zero[i] = zero[i], p.shift[i] = shift[i], p.low[i] = low[i], p.high[i] = high[i];
    for (int j = 0; j < 3; ++j) p.by[i][j] = by[i][j];
  }
  return p;
}

inline void bind_color_params(pybind11::module_& m) {
  namespace py = pybind11;
  py::class_<ColorParams>(m, "ColorParams", py::module_local())
      .def(py::init(&color_params), py::kw_only(), py::arg("size"), py::arg("y"), py::arg("u"), py::arg("v"), py::arg("sample"),
           py::arg("unused"), py::arg("between"), py::arg("rgb"), py::arg("rgb_type"), py::arg("rgb_strides"), py::arg("zero"),
           py::arg("by"), py::arg("shift"), py::arg("low"), py::arg("high"));
}

}  // namespace
}  // namespace liif
