// liif_fast._cpu: the decoder, the resampler, the convolution and the colour conversions for processors. Chooses the instruction
// set at run time, splits the work over threads.
#include "../bindings.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#ifdef LIIF_HAVE_AVX2
#include <cpuid.h>
#endif
#if defined(LIIF_HAVE_AMX) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(LIIF_HAVE_NEONBF16) && !defined(LIIF_EMULATED)
#ifdef __APPLE__
#include <sys/sysctl.h>
#else
#include <sys/auxv.h>
#endif
#endif

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "chain.h"
#include "isa.h"
#include "parallel.h"

namespace py = pybind11;

namespace liif {
namespace {

struct Isa {
  const char* name;
  DecodeRange decode;
  ResampleRange resample;
  ConvolveRange convolve;
  WinogradRange winograd, winograd_bf16;  // the second null where bf16 is not multiplied
  WinogradGradientRange winograd_gradient;
  ConvertRange to_rgb, from_rgb;
  bool supported;  // by this processor and operating system
  bool int8;       // whether `decode` has products of i8
};

#if defined(LIIF_HAVE_AMX) && !defined(LIIF_EMULATED)
// Whether the processor has AMX for bf16 and the operating system keeps its tiles for this process: Linux does when asked.
bool may_use_amx() {
#ifdef __linux__
  unsigned a, b, c, d;
  constexpr unsigned kBf16 = 1u << 22, kTiles = 1u << 24;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kBf16) == 0 || (d & kTiles) == 0) return false;
  constexpr long kAskPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kAskPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

#if defined(LIIF_HAVE_AVXVNNI) && !defined(LIIF_EMULATED)
// Whether the processor has AVX-VNNI, by whose name not every compiler asks.
bool has_avxvnni() {
  unsigned a, b, c, d;
  constexpr unsigned kAvxVnni = 1u << 4;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & kAvxVnni) != 0;
}
#endif

#if defined(LIIF_HAVE_NEONBF16) && !defined(LIIF_EMULATED)
// Whether the processor has ARM's BF16 extension.
bool has_neonbf16() {
#ifdef __APPLE__
  int found = 0;
  size_t size = sizeof found;
  return sysctlbyname("hw.optional.arm.FEAT_BF16", &found, &size, nullptr, 0) == 0 && found == 1;
#else
  constexpr unsigned long kBf16 = 1ul << 14;  // HWCAP2_BF16
  return (getauxval(AT_HWCAP2) & kBf16) != 0;
#endif
}
#endif

// Best first. Sets that the compiler did not know are missing.
const std::vector<Isa>& isas() {
  static const std::vector<Isa> all = [] {
    std::vector<Isa> list;
#ifdef LIIF_EMULATED
    const bool avx512 = true, avx512vnni = true, avxvnni = true, avx512bf16 = true, amx = true, neonbf16 = true;
#elif defined(LIIF_HAVE_NEONBF16)
    const bool neonbf16 = has_neonbf16();
#elif defined(LIIF_HAVE_AVX512)
    __builtin_cpu_init();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#ifdef LIIF_HAVE_AVX512BF16
    const bool avx512bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
#endif
#ifdef LIIF_HAVE_AVX512VNNI
    const bool avx512vnni = avx512 && __builtin_cpu_supports("avx512vnni");
#endif
#ifdef LIIF_HAVE_AMX
    const bool amx = avx512bf16 && may_use_amx();
#endif
#endif
#ifdef LIIF_HAVE_AVX2
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#if defined(LIIF_HAVE_AVXVNNI) && !defined(LIIF_EMULATED)
    const bool avxvnni = avx2 && has_avxvnni();
#endif
#ifdef LIIF_HAVE_AMX
    list.push_back({"amx", decode_amx, resample_avx512, convolve_amx, winograd_avx512, winograd_avx512bf16,
                    winograd_gradient_avx512, to_rgb_avx2, from_rgb_avx2, amx, false});
#endif
#ifdef LIIF_HAVE_AVX512BF16
    list.push_back({"avx512bf16", decode_avx512bf16, resample_avx512, convolve_avx512bf16, winograd_avx512, winograd_avx512bf16,
                    winograd_gradient_avx512, to_rgb_avx2, from_rgb_avx2, avx512bf16, false});
#endif
#ifdef LIIF_HAVE_AVX512VNNI
    list.push_back({"avx512vnni", decode_avx512vnni, resample_avx512, convolve_avx512, winograd_avx512, nullptr,
                    winograd_gradient_avx512, to_rgb_avx2, from_rgb_avx2, avx512vnni, true});
#endif
#ifdef LIIF_HAVE_AVX512
    list.push_back({"avx512", decode_avx512, resample_avx512, convolve_avx512, winograd_avx512, nullptr, winograd_gradient_avx512,
                    to_rgb_avx2, from_rgb_avx2, avx512, false});
#endif
#ifdef LIIF_HAVE_AVXVNNI
    list.push_back({"avxvnni", decode_avxvnni, resample_avx2, convolve_avx2, winograd_avx2, nullptr, winograd_gradient_avx2,
                    to_rgb_avx2, from_rgb_avx2, avxvnni, true});
#endif
#ifdef LIIF_HAVE_AVX2
    list.push_back({"avx2", decode_avx2, resample_avx2, convolve_avx2, winograd_avx2, nullptr, winograd_gradient_avx2,
                    to_rgb_avx2, from_rgb_avx2, avx2, true});
#endif
#ifdef LIIF_HAVE_NEONBF16
    list.push_back({"neonbf16", decode_neonbf16, resample_neon, convolve_neonbf16, winograd_neon, winograd_neonbf16,
                    winograd_gradient_neon, to_rgb_scalar, from_rgb_scalar, neonbf16, false});
#endif
#ifdef LIIF_HAVE_NEON  // every processor of that kind has it, and colours in plain C++ are compiled to it
    list.push_back({"neon", decode_neon, resample_neon, convolve_neon, winograd_neon, nullptr, winograd_gradient_neon,
                    to_rgb_scalar, from_rgb_scalar, true, false});
#endif
    list.push_back({"scalar", decode_scalar, resample_scalar, convolve_scalar, winograd_scalar, nullptr, winograd_gradient_scalar,
                    to_rgb_scalar, from_rgb_scalar, true, true});
    return list;
  }();
  return all;
}

const Isa& find(const std::string& name) {
  for (const Isa& isa : isas()) {
    if (name != isa.name) continue;
    if (!isa.supported) throw std::invalid_argument("this processor has no " + name);
    return isa;
  }
  throw std::invalid_argument("no instruction set '" + name + "' in this build");
}

bool is_intel() {
#ifdef LIIF_HAVE_AVX2
  __builtin_cpu_init();
  return __builtin_cpu_is("intel");
#else
  return false;
#endif
}

using Table = std::tuple<Pointer, Pointer, Pointer, int64_t>;           // index, offset, weight, size
using Layer = std::tuple<Pointer, Pointer, Pointer, int32_t, int32_t>;  // weight, multiplier, bias, in, out
using Floats3 = std::tuple<float, float, float>;

Pixels pixels(bool paired, const Floats3& scale, const Floats3& shift, float low, float high, Pointer data, Type type,
              const Strides& strides) {
  Pixels p{};
  p.paired = paired, p.low = low, p.high = high, p.data = as<void>(data), p.type = type;
  std::tie(p.scale[0], p.scale[1], p.scale[2]) = scale;
  std::tie(p.shift[0], p.shift[1], p.shift[2]) = shift;
  std::tie(p.row_stride, p.column_stride, p.channel_stride) = strides;
  return p;
}

void decode(const std::string& isa, int threads, Pointer z, Type type, Type products, int32_t width, int64_t z_row_stride,
            int32_t sides, const Table& y, const Table& x, Pointer first, Pointer first_y, Pointer first_x,
            const std::vector<Layer>& hidden, Pointer last, Pointer last_bias, const Pixels& out) {
  const Isa& with = find(isa);
  if (products == Type::i8 && !with.int8) throw std::invalid_argument(isa + " does not multiply int8");
  const DecodeRange run = with.decode;
  std::vector<HiddenLayer> layers;
  for (const auto& [weight, multiplier, bias, in, to] : hidden) {
    layers.push_back({as<const void>(weight), as<const float>(multiplier), as<const float>(bias), in, to});
  }
  const auto table = [](const Table& t) {
    return AxisTable{as<const int32_t>(std::get<0>(t)), as<const float>(std::get<1>(t)), as<const float>(std::get<2>(t)),
                     std::get<3>(t)};
  };
  DecodeParams p{};
  p.z = as<const void>(z), p.type = type, p.products = products, p.width = width, p.z_row_stride = z_row_stride;
  p.sides = sides, p.y = table(y), p.x = table(x), p.out = out;
  p.first = as<const float>(first), p.first_y = as<const float>(first_y), p.first_x = as<const float>(first_x);
  p.hidden = layers.data(), p.hidden_count = static_cast<int32_t>(layers.size());
  p.last = as<const float>(last), p.last_bias = as<const float>(last_bias);

  const py::gil_scoped_release release;
  const int64_t count = out.paired ? p.x.size : p.y.size * p.x.size;
  parallel_for(count, kTilePixels, threads, [&](int64_t begin, int64_t end) {
    // Freed with the thread; zeroed once, since rows beyond the last pixel are multiplied too.
    thread_local std::unique_ptr<Scratch> scratch = std::make_unique<Scratch>();
    run(p, begin, end, *scratch);
  });
}

using Taps = std::tuple<Pointer, Pointer, int64_t>;  // first, taps, size

void resample(const std::string& isa, int threads, Pointer z, Type type, int64_t rows, int64_t columns, int64_t z_row_stride,
              const Taps& y, const Taps& x, const Pixels& out) {
  const ResampleRange run = find(isa).resample;
  const auto table = [](const Taps& t) {
    return TapTable{as<const int32_t>(std::get<0>(t)), as<const float>(std::get<1>(t)), std::get<2>(t)};
  };
  ResampleParams p{};
  p.z = as<const void>(z), p.type = type, p.rows = rows, p.columns = columns, p.z_row_stride = z_row_stride;
  p.y = table(y), p.x = table(x), p.out = out;

  const py::gil_scoped_release release;
  // Every piece of rows begins with a ring of fine rows that the one before has made too.
  parallel_for(out.paired ? p.x.size : p.y.size, 16, threads, [&](int64_t begin, int64_t end) {
    thread_local std::unique_ptr<Strip> strip = std::make_unique<Strip>();
    run(p, begin, end, *strip);
  });
}

// Of this thread, freed with it. Zeroed, since tiles beyond the last are multiplied too.
WinogradScratch winograd_scratch(int in, int out) {
  thread_local std::vector<float> memory;
  constexpr size_t kLine = 16;
  const auto size = static_cast<size_t>(winograd_size(in) + winograd_size(out)) + kLine;
  if (memory.size() < size) memory.assign(size, 0.0f);
  const size_t past = reinterpret_cast<uintptr_t>(memory.data()) / sizeof(float) % kLine;
  float* start = memory.data() + (past ? kLine - past : 0);
  return {start, start + winograd_size(in)};
}

using Picture = std::tuple<Pointer, int64_t>;  // first pixel, row stride

ConvolveParams convolve_params(Type type, const PixelGrid& grid, int64_t first_row, int32_t in, int32_t out, int32_t kernel,
                               const Picture& input, const Picture& skip, Pointer weight, Pointer winograd, Type winograd_type,
                               Pointer winograd_skip, Pointer bias, bool relu, Pointer add, const Picture& output) {
  ConvolveParams p{};
  p.type = type, p.grid = grid, p.first_row = first_row, p.in = in, p.out = out, p.kernel = kernel;
  p.input = as<const void>(std::get<0>(input)), p.input_row_stride = std::get<1>(input);
  p.skip = as<const void>(std::get<0>(skip)), p.skip_row_stride = std::get<1>(skip);
  p.weight = as<const void>(weight), p.bias = as<const float>(bias);
  p.winograd = as<const void>(winograd), p.winograd_type = winograd_type, p.winograd_skip = as<const float>(winograd_skip);
  p.relu = relu, p.add = as<const void>(add);
  p.output = as<void>(std::get<0>(output)), p.output_row_stride = std::get<1>(output);
  return p;
}

void convolve(const std::vector<ConvolveParams>& chain, const std::string& isa, int threads) {
  const Isa& with = find(isa);
  const auto by = [&](const ConvolveParams& p) { return p.winograd_type == Type::bf16 ? with.winograd_bf16 : with.winograd; };
  for (size_t i = 0; i < chain.size(); ++i) {
    const ConvolveParams &p = chain[i], &before = chain[i ? i - 1 : 0];
    const auto end = [](const ConvolveParams& q) { return q.first_row + q.grid.rows; };
    if (p.winograd && by(p) == nullptr)
      throw std::invalid_argument(isa + " does not multiply bf16, for which the weights were packed: pack them anew");
    const bool fits = p.grid.columns == before.grid.columns && p.first_row <= before.first_row && end(p) <= end(before);
    if (chain.size() > 1 && (p.grid.picture_rows || !fits))
      throw std::invalid_argument(
          "a chain of convolutions is of one picture, of which each makes rows that those before have made");
  }
  if (chain.empty() || chain[0].grid.columns < 1) return;

  const py::gil_scoped_release release;
  Chain(chain, threads).go([&](const ConvolveParams& p, int64_t begin, int64_t end) {
    p.winograd ? by(p)(p, begin, end, winograd_scratch(p.in, p.out)) : with.convolve(p, begin, end);
  });
}

void convolve_gradient(const std::string& isa, int threads, Type type, const PixelGrid& grid, int32_t in, int32_t out,
                       Pointer input, Pointer output, Pointer weight) {
  const WinogradGradientRange run = find(isa).winograd_gradient;
  const ConvolveGradientParams p{type, grid, in, out, as<const void>(input), as<const void>(output)};
  const int64_t blocks = (tiles_in(grid) + kWinogradTiles - 1) / kWinogradTiles, size = int64_t{36} * in * out;
  // Each part has sums of its own, added in order: the same bits from run to run.
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(threads, blocks));

  const py::gil_scoped_release release;
  auto* total = as<float>(weight);
  std::fill(total, total + size, 0.0f);
  std::vector<float> others((parts - 1) * size);
  parallel_for(parts, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * blocks / parts * kWinogradTiles, last = (i + 1) * blocks / parts * kWinogradTiles;
      run(p, first, std::min(last, tiles_in(grid)), winograd_scratch(in, out), i ? others.data() + (i - 1) * size : total);
    }
  });
  parallel_for(size, 1 << 14, threads, [&](int64_t begin, int64_t end) {
    for (int64_t part = 0; part < parts - 1; ++part) {
      for (int64_t i = begin; i < end; ++i) total[i] += others[part * size + i];
    }
  });
}

void normalise_picture(int threads, Type type, Pointer image, const Strides& strides, std::pair<int64_t, int64_t> size,
                       float white, const Three& mean, const Three& std, Type out_type, const Picture& out) {
  NormaliseParams p{};
  p.type = type, p.image = as<const void>(image), p.rows = size.first, p.columns = size.second, p.white = white;
  std::tie(p.strides[0], p.strides[1], p.strides[2]) = strides;
  std::copy(mean.begin(), mean.end(), p.mean), std::copy(std.begin(), std.end(), p.std);
  p.out_type = out_type, p.out = as<void>(std::get<0>(out)), p.out_row_stride = std::get<1>(out);

  const py::gil_scoped_release release;
  // It takes as long to start a thread as for so many pixels.
  constexpr int64_t kLeast = 1 << 17;
  parallel_for(p.rows, 1 + kLeast / std::max<int64_t>(1, p.columns), threads,
               [&](int64_t begin, int64_t end) { normalise(p, begin, end); });
}

void convert(ConvertRange run, const ColorParams& p, int threads) {
  if (p.width < 1) return;
  const py::gil_scoped_release release;
  // Threads begin for a frame, not for a thumbnail.
  const int64_t grain = std::max<int64_t>(1, 16384 / p.width);
  parallel_for((p.height + 1) / 2, grain, threads, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace
}  // namespace liif

PYBIND11_MODULE(_cpu, m) {
  using namespace liif;
  m.doc() =
      "The decoder, the resampler, the convolution and the colour conversions for processors; see csrc/decode.h, "
      "csrc/resample.h, csrc/convolve.h, csrc/normalise.h and csrc/colors.h for the meaning, layout and unit of every argument.";
  bind_type(m);
  bind_color_params(m);
  m.def("normalise", &normalise_picture, py::kw_only(), py::arg("threads"), py::arg("type"), py::arg("image"), py::arg("strides"),
        py::arg("size"), py::arg("white"), py::arg("mean"), py::arg("std"), py::arg("out_type"), py::arg("out"));
  m.def(
      "to_rgb", [](const ColorParams& p, const std::string& isa, int threads) { convert(find(isa).to_rgb, p, threads); },
      py::arg("params"), py::kw_only(), py::arg("isa"), py::arg("threads"));
  m.def(
      "from_rgb", [](const ColorParams& p, const std::string& isa, int threads) { convert(find(isa).from_rgb, p, threads); },
      py::arg("params"), py::kw_only(), py::arg("isa"), py::arg("threads"));
  m.def(
      "isas",
      [] {
        std::vector<std::pair<std::string, bool>> names;
        for (const Isa& isa : isas()) names.emplace_back(isa.name, isa.supported);
        return names;
      },
      "Instruction sets in this build, best first, and whether this processor has them.");
  m.def("is_intel", &is_intel);
  m.def("share_mode", &share_mode, py::kw_only(), py::arg("threads"));
  openmp();  // looks out for forks from here on
  m.def("openmp", [] { return openmp() != nullptr; }, "Whether work is done on the threads of the process's OpenMP.");
  py::class_<Pixels>(m, "Pixels", py::module_local())
      .def(py::init(&pixels), py::kw_only(), py::arg("paired"), py::arg("scale"), py::arg("shift"), py::arg("low"),
           py::arg("high"), py::arg("data"), py::arg("type"), py::arg("strides"));
  m.def("decode", &decode, py::kw_only(), py::arg("isa"), py::arg("threads"), py::arg("z"), py::arg("type"), py::arg("products"),
        py::arg("width"), py::arg("z_row_stride"), py::arg("sides"), py::arg("y"), py::arg("x"), py::arg("first"),
        py::arg("first_y"), py::arg("first_x"), py::arg("hidden"), py::arg("last"), py::arg("last_bias"), py::arg("out"));
  m.def("resample", &resample, py::kw_only(), py::arg("isa"), py::arg("threads"), py::arg("z"), py::arg("type"), py::arg("rows"),
        py::arg("columns"), py::arg("z_row_stride"), py::arg("y"), py::arg("x"), py::arg("out"));
  py::class_<PixelGrid>(m, "PixelGrid", py::module_local())
      .def(py::init([](int64_t rows, int64_t columns, int64_t picture_rows) { return PixelGrid{rows, columns, picture_rows}; }),
           py::arg("rows"), py::arg("columns"), py::arg("picture_rows") = 0);
  py::class_<ConvolveParams>(m, "ConvolveParams", py::module_local())
      .def(py::init(&convolve_params), py::kw_only(), py::arg("type"), py::arg("grid"), py::arg("first_row") = 0, py::arg("into"),
           py::arg("out"), py::arg("kernel"), py::arg("input"), py::arg("skip") = Picture{}, py::arg("weight") = 0,
           py::arg("winograd"), py::arg("winograd_type") = Type::f32, py::arg("winograd_skip") = 0, py::arg("bias"),
           py::arg("relu") = false, py::arg("add") = 0, py::arg("output"));
  m.def("convolve", &convolve, py::arg("chain"), py::kw_only(), py::arg("isa"), py::arg("threads"));
  m.def("convolve_gradient", &convolve_gradient, py::kw_only(), py::arg("isa"), py::arg("threads"), py::arg("type"),
        py::arg("grid"), py::arg("into"), py::arg("out"), py::arg("input"), py::arg("output"), py::arg("weight"));
}
