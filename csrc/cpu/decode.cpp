// The scalar decoder: the plainest statement of the algorithm, and what runs where no vector code was built. Its inner loops run
// over the 16 columns of a weight panel, so that a compiler vectorises them with what the target has.
#include <cstring>

#include "isa.h"

namespace liif {
namespace {

float load(const void* base, Type type, int64_t i) {
  switch (type) {
    case Type::bf16: return bf16_to_float(static_cast<const uint16_t*>(base)[i]);
    case Type::i8: return static_cast<const int8_t*>(base)[i];
    default: return static_cast<const float*>(base)[i];
  }
}

// What storing rectified activations in `type` makes of them. The step of int8, else 1.
float store(float* v, int count, Type type) {
  if (type == Type::bf16) {
    for (int i = 0; i < count; ++i) v[i] = bf16_to_float(float_to_bf16(v[i]));
  }
  if (type != Type::i8) return 1;
  float largest = 1e-30f;  // a row of zeros has a step too
  for (int i = 0; i < count; ++i) largest = v[i] > largest ? v[i] : largest;
  const float by = 255 / largest;
  for (int i = 0; i < count; ++i) v[i] = static_cast<float>(round_even(v[i] * by));
  return largest / 255;
}

// One row through one hidden layer. Floats hold the whole sums of int8 exactly.
void hidden(const HiddenLayer& layer, Type type, float step, const float* in, float* out) {
  const int word = type == Type::bf16 ? 2 : type == Type::i8 ? 4 : 1;
  for (int n = 0; n < layer.out; n += kPanel) {
    float sum[kPanel];
    if (type == Type::i8) {
      std::memset(sum, 0, sizeof sum);
    } else {
      std::memcpy(sum, layer.bias + n, sizeof sum);
    }
    const int64_t panel = static_cast<int64_t>(n) * layer.in;
    for (int k = 0; k < layer.in; ++k) {
      const int64_t at = panel + static_cast<int64_t>(k / word) * kPanel * word + k % word;
      for (int j = 0; j < kPanel; ++j) sum[j] += in[k] * load(layer.weight, type, at + word * j);
    }
    if (type == Type::i8) {
      for (int j = 0; j < kPanel; ++j) sum[j] = sum[j] * (layer.multiplier[n + j] * step) + layer.bias[n + j];
    }
    for (int j = 0; j < kPanel; ++j) out[n + j] = sum[j] < 0 ? 0 : sum[j];
  }
}

}  // namespace

void decode_scalar(const DecodeParams& p, int64_t begin, int64_t end, Scratch& scratch) {
  Cursor at(p, begin);
  for (int64_t pixel = begin; pixel < end; ++pixel, at.next()) {
    float blended[kMaxWidth] = {};
    int width = p.width;
    for (int sy = 0; sy < p.sides; ++sy) {
      for (int sx = 0; sx < p.sides; ++sx) {
        const int64_t y = sy * p.y.size + at.row, x = sx * p.x.size + at.column;
        const int64_t cell = p.y.index[y] * p.z_row_stride + static_cast<int64_t>(p.x.index[x]) * p.width;
        float *in = scratch.a, *out = scratch.b;
        width = p.width;
        for (int c = 0; c < width; ++c) {
          const float term = p.first[c] + p.first_y[c] * p.y.offset[y];
          const float v = load(p.z, p.type, cell + c) + (term + p.first_x[c] * p.x.offset[x]);
          in[c] = v < 0 ? 0 : v;
        }
        for (int l = 0; l < p.hidden_count; ++l) {
          const float step = store(in, width, p.products);
          hidden(p.hidden[l], p.products, step, in, out);
          width = p.hidden[l].out;
          float* swap = in;
          in = out, out = swap;
        }
        const float weight = p.y.weight[y] * p.x.weight[x];
        for (int c = 0; c < width; ++c) blended[c] += weight * in[c];
      }
    }
    float rgb[3] = {};
    for (int o = 0; o < 3; ++o) {
      for (int c = 0; c < width; ++c) rgb[o] += blended[c] * p.last[o * width + c];
    }
    store_pixel(p, at.row, at.column, rgb);
  }
}

}  // namespace liif
