// The colour conversions for processors, by rows and in strips that stay in the first cache. Plain loops, which compilers make
// vectors of.
#pragma once

// Before all that is included: no fused products, or the bits would not be those of other processors and of CUDA.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

#include "isa.h"

namespace liif {
namespace {

constexpr int64_t kColorStrip = 1024;  // columns, even
constexpr int64_t kHalfStrip = kColorStrip / 2;

inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

template <class T>
const T* row_of(const Samples& s, int64_t row) {
  return static_cast<const T*>(s.data) + row * s.row_stride;
}

// One component's chroma for `count` chroma columns from `first` on, interpolated for pixel row `row`: out[2 i], out[2 i + 1].
template <class T, int kStep>
void chroma_line(const ColorParams& p, const Samples& s, const ChromaFilter& fy, const ChromaFilter& fx, float zero, int64_t row,
                 int64_t first, int64_t count, float* out) {
  const int64_t rows = (p.height + 1) / 2, columns = (p.width + 1) / 2;
  const T* from[kUp];
  for (int k = 0; k < kUp; ++k) from[k] = row_of<T>(s, bounded<int64_t>(row / 2 + k - 2, 0, rows - 1));
  const float* w = fy.up[row % 2];
  float line[kHalfStrip + kUp - 1];  // its element i is chroma column first + i - 2
  const auto value = [&](int64_t column) {
    float v[kUp];
    for (int k = 0; k < kUp; ++k) v[k] = sample_value(from[k][column * kStep], p.unused);
    return upsampled(w, v[0], v[1], v[2], v[3], v[4]) - zero;
  };
  for (int k = 0; k < 2; ++k) {
    line[k] = value(bounded<int64_t>(first + k - 2, 0, columns - 1));
    line[count + 2 + k] = value(bounded<int64_t>(first + count + k, 0, columns - 1));
  }
  for (int64_t i = 0; i < count; ++i) line[2 + i] = value(first + i);
  for (int64_t i = 0; i < count; ++i) {
    const float* v = line + i;
    out[2 * i] = upsampled(fx.up[0], v[0], v[1], v[2], v[3], v[4]);
    out[2 * i + 1] = upsampled(fx.up[1], v[0], v[1], v[2], v[3], v[4]);
  }
}

// Lines of R'G'B' of one channel, whatever they are stored as.
using StoreLine = void (*)(const float* values, void* out, int64_t stride, int64_t count);
using LoadLine = void (*)(const void* from, int64_t stride, int64_t count, float* values);

template <class Rgb>
void store_line(const float* values, void* to, int64_t stride, int64_t count) {
  Rgb* out = static_cast<Rgb*>(to);
  if (stride == 1) {
    for (int64_t i = 0; i < count; ++i) store_rgb_value(values[i], out + i);
  } else if (stride == 3) {
    for (int64_t i = 0; i < count; ++i) store_rgb_value(values[i], out + 3 * i);
  } else {
    for (int64_t i = 0; i < count; ++i) store_rgb_value(values[i], out + stride * i);
  }
}

template <class Rgb>
void load_line(const void* at, int64_t stride, int64_t count, float* values) {
  const Rgb* from = static_cast<const Rgb*>(at);
  if (stride == 1) {
    for (int64_t i = 0; i < count; ++i) values[i] = rgb_value(from[i]);
  } else if (stride == 3) {
    for (int64_t i = 0; i < count; ++i) values[i] = rgb_value(from[3 * i]);
  } else {
    for (int64_t i = 0; i < count; ++i) values[i] = rgb_value(from[stride * i]);
  }
}

struct RgbType {
  int64_t bytes;
  StoreLine store;
  LoadLine load;
};

template <class Rgb>
constexpr RgbType kRgbType{sizeof(Rgb), store_line<Rgb>, load_line<Rgb>};

inline RgbType rgb_type(Type type) {
  switch (type) {
    case Type::u8: return kRgbType<uint8_t>;
    case Type::u16: return kRgbType<uint16_t>;
    case Type::bf16: return kRgbType<BF16>;
    case Type::f16: return kRgbType<F16>;
    default: return kRgbType<float>;
  }
}

// The number of a row, column and channel of p.rgb.
inline char* rgb_at(const ColorParams& p, const RgbType& type, int64_t row, int64_t column, int64_t channel) {
  return static_cast<char*>(p.rgb) +
         (row * p.rgb_row_stride + column * p.rgb_column_stride + channel * p.rgb_channel_stride) * type.bytes;
}

template <class T, int kStep>
void to_rgb_rows(const ColorParams& p, int64_t begin, int64_t end) {
  const RgbType type = rgb_type(p.rgb_type);
  const ChromaFilter fy = chroma_filter(p.between_y), fx = chroma_filter(p.between_x);
  float u[kColorStrip], v[kColorStrip], values[kColorStrip];
  for (int64_t row = 2 * begin; row < at_most(2 * end, p.height); ++row) {
    for (int64_t start = 0; start < p.width; start += kColorStrip) {
      const int64_t count = at_most(kColorStrip, p.width - start);
      chroma_line<T, kStep>(p, p.u, fy, fx, p.zero[1], row, start / 2, (count + 1) / 2, u);
      chroma_line<T, kStep>(p, p.v, fy, fx, p.zero[2], row, start / 2, (count + 1) / 2, v);
      const T* y = row_of<T>(p.y, row) + start;
      for (int c = 0; c < 3; ++c) {
        for (int64_t i = 0; i < count; ++i) {
          values[i] = converted(p, c, sample_value(y[i], p.unused) - p.zero[0], u[i], v[i]);
        }
        type.store(values, rgb_at(p, type, row, start, c), p.rgb_column_stride, count);
      }
    }
  }
}

template <class T, int kStep>
void from_rgb_rows(const ColorParams& p, int64_t begin, int64_t end) {
  const RgbType type = rgb_type(p.rgb_type);
  const ChromaFilter fy = chroma_filter(p.between_y), fx = chroma_filter(p.between_x);
  // Element 1 + i is column start + i; one more on either side.
  float rgb[kDown][3][kColorStrip + 2], half[kColorStrip + 2], mean[3][kHalfStrip];
  for (int64_t chroma_row = begin; chroma_row < end; ++chroma_row) {
    for (int64_t start = 0; start < p.width; start += kColorStrip) {
      const int64_t count = at_most(kColorStrip, p.width - start), pairs = (count + 1) / 2;
      for (int k = 0; k < kDown; ++k) {
        const int64_t wanted = 2 * chroma_row + k - 1, row = bounded<int64_t>(wanted, 0, p.height - 1);
        for (int c = 0; c < 3; ++c) {
          float* line = rgb[k][c];
          type.load(rgb_at(p, type, row, start, c), p.rgb_column_stride, count, line + 1);
          type.load(rgb_at(p, type, row, start ? start - 1 : 0, c), 1, 1, line);
          line[count + 1] = line[count];  // read where the last pair is of one pixel
          for (int64_t i = 0; i < count + 2; ++i) line[i] -= p.zero[c];
        }
        if (k > 0 && wanted == row) {
          T* y = static_cast<T*>(p.y.data) + row * p.y.row_stride + start;
          for (int64_t i = 0; i < count; ++i) {
            y[i] = stored_sample<T>(converted(p, 0, rgb[k][0][1 + i], rgb[k][1][1 + i], rgb[k][2][1 + i]), p.unused);
          }
        }
      }
      for (int c = 0; c < 3; ++c) {
        for (int64_t i = 0; i < count + 2; ++i) half[i] = downsampled(fy.down, rgb[0][c][i], rgb[1][c][i], rgb[2][c][i]);
        for (int64_t i = 0; i < pairs; ++i) mean[c][i] = downsampled(fx.down, half[2 * i], half[2 * i + 1], half[2 * i + 2]);
      }
      for (int i = 1; i < 3; ++i) {
        const Samples& s = i == 1 ? p.u : p.v;
        T* out = static_cast<T*>(s.data) + chroma_row * s.row_stride + start / 2 * kStep;
        for (int64_t x = 0; x < pairs; ++x) {
          out[kStep * x] = stored_sample<T>(converted(p, i, mean[0][x], mean[1][x], mean[2][x]), p.unused);
        }
      }
    }
  }
}

inline void to_rgb_any(const ColorParams& p, int64_t begin, int64_t end) {
  const bool pairs = p.u.step == 2;
  if (p.sample == Type::u8) {
    (pairs ? to_rgb_rows<uint8_t, 2> : to_rgb_rows<uint8_t, 1>)(p, begin, end);
  } else {
    (pairs ? to_rgb_rows<uint16_t, 2> : to_rgb_rows<uint16_t, 1>)(p, begin, end);
  }
}

inline void from_rgb_any(const ColorParams& p, int64_t begin, int64_t end) {
  const bool pairs = p.u.step == 2;
  if (p.sample == Type::u8) {
    (pairs ? from_rgb_rows<uint8_t, 2> : from_rgb_rows<uint8_t, 1>)(p, begin, end);
  } else {
    (pairs ? from_rgb_rows<uint16_t, 2> : from_rgb_rows<uint16_t, 1>)(p, begin, end);
  }
}

}  // namespace
}  // namespace liif
