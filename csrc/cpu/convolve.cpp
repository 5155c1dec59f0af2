// The scalar convolution: the plainest statement of the algorithm, and what runs where no vector code was built.
#include <cstring>

#include "isa.h"

namespace liif {
namespace {

float load(const void* base, Type type, int64_t i) {
  return type == Type::bf16 ? bf16_to_float(static_cast<const uint16_t*>(base)[i]) : static_cast<const float*>(base)[i];
}

void store(void* base, Type type, int64_t i, float v) {
  if (type == Type::bf16) {
    static_cast<uint16_t*>(base)[i] = float_to_bf16(v);
  } else {
    static_cast<float*>(base)[i] = v;
  }
}

// Sixteen outputs: `count` inputs from `from` on, which are inputs [k, k + count) of the panel.
void add_run(const ConvolveParams& p, const void* picture, int64_t from, int count, int64_t panel, int k, float* sum) {
  const int pair = p.type == Type::bf16 ? 2 : 1;
  for (int i = 0; i < count; ++i) {
    const float v = load(picture, p.type, from + i);
    const int64_t at = panel + static_cast<int64_t>((k + i) / pair) * kPanel * pair + (k + i) % pair;
    for (int j = 0; j < kPanel; ++j) sum[j] += v * load(p.weight, p.type, at + static_cast<int64_t>(j) * pair);
  }
}

}  // namespace

void convolve_scalar(const ConvolveParams& p, int64_t begin, int64_t end) {
  const int run = p.kernel * p.in, inputs = p.kernel * run + (p.skip ? kSkip : 0), reach = p.kernel / 2;
  for (int64_t y = begin; y < end; ++y) {
    for (int64_t x = 0; x < p.grid.columns; ++x) {
      for (int n = 0; n < p.out; n += kPanel) {
        float sum[kPanel];
        std::memcpy(sum, p.bias + n, sizeof sum);
        const int64_t panel = static_cast<int64_t>(n) * inputs;
        for (int row = 0; row < p.kernel; ++row) {
          const int64_t from = (y + row - reach) * p.input_row_stride + (x - reach) * p.in;
          add_run(p, p.input, from, run, panel, row * run, sum);
        }
        if (p.skip) add_run(p, p.skip, y * p.skip_row_stride + x * kSkip, kSkip, panel, p.kernel * run, sum);
        const int64_t at = y * p.output_row_stride + x * p.out + n;
        for (int j = 0; j < kPanel; ++j) {
          const float v = p.add ? sum[j] + load(p.add, p.type, at + j) : sum[j];
          store(p.output, p.type, at + j, p.relu && v < 0 ? 0 : v);
        }
      }
    }
  }
}

}  // namespace liif
