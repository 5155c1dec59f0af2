// liif_fast._cuda: the colour conversions for CUDA devices. It can be imported without one, and then says so when it is used.
#include "../bindings.h"

#include <stdexcept>
#include <string>

#include "colors.h"

namespace py = pybind11;

namespace liif {
namespace {

std::string words(const CudaError& error) { return std::string(error.text) + " (" + error.name + ")"; }

template <CudaError (*run)(const ColorParams&, int, void*)>
void convert(const ColorParams& p, int device, Pointer stream) {
  CudaError error;
  {
    const py::gil_scoped_release release;
    error = run(p, device, as<void>(stream));
  }
  if (error.name) throw std::runtime_error("CUDA: " + words(error));
}

}  // namespace
}  // namespace liif

PYBIND11_MODULE(_cuda, m) {
  using namespace liif;
  m.doc() =
      "The colour conversions for CUDA devices; see csrc/colors.h for the meaning, layout and unit of every parameter. `device` "
      "is "
      "its number, `stream` a cudaStream_t of it, on which the conversion is queued. RuntimeError with CUDA's reason.";
  bind_type(m);
  bind_color_params(m);
  m.def("problem", [] {
    const CudaError error = cuda_problem();
    return error.name ? words(error) : std::string();
  });
  m.def("to_rgb", &convert<to_rgb_cuda>, py::arg("params"), py::kw_only(), py::arg("device"), py::arg("stream"));
  m.def("from_rgb", &convert<from_rgb_cuda>, py::arg("params"), py::kw_only(), py::arg("device"), py::arg("stream"));
}
