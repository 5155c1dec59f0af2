// The resampler once, over what differs between instruction sets. The rows first: for an output row the fine rows it needs, split
// by channel and kept in a ring, are summed; then each of its pixels is a sum of kTaps neighbours in that sum.
//
// S has:  add_rows(ring rows, taps, count, out): out[x] = sum_k taps[k] * row[k][x], and
//         columns(p, row, begin, end, fine, sum): output columns [begin, end) from `sum`, whose first entry is fine column
//         `fine`.
#pragma once

#include "isa.h"

namespace liif {
namespace {

inline float load_as_float(const float* p) { return *p; }
inline float load_as_float(const uint16_t* p) { return bf16_to_float(*p); }

// Fine row `line` between cells [from, to), one plane per channel. Past the picture's edge it is zero.
template <class Elem>
void split_row(const ResampleParams& p, int64_t line, int64_t from, int64_t to, float (*out)[kStrip]) {
  const int64_t row = line / kFactor, a = line % kFactor, inside = to < p.columns ? to : p.columns;
  int64_t at = 0;
  if (row < p.rows) {
    const Elem* z = static_cast<const Elem*>(p.z) + row * p.z_row_stride + from * kFineChannels + a * 3 * kFactor;
    for (int64_t cell = from; cell < inside; ++cell, z += kFineChannels, at += kFactor) {
      for (int c = 0; c < 3; ++c) {
        for (int b = 0; b < kFactor; ++b) out[c][at + b] = load_as_float(z + c * kFactor + b);
      }
    }
  }
  for (; at < (to - from) * kFactor; ++at) out[0][at] = out[1][at] = out[2][at] = 0;
}

template <class Elem>
void resample_point(const ResampleParams& p, int64_t i) {
  float rgb[3] = {};
  for (int k = 0; k < kTaps; ++k) {
    const int64_t line = p.y.first[i] + k, row = line / kFactor, a = line % kFactor;
    for (int l = 0; l < kTaps && row < p.rows; ++l) {
      const int64_t column = p.x.first[i] + l, cell = column / kFactor;
      if (cell >= p.columns) break;
      const Elem* z = static_cast<const Elem*>(p.z) + row * p.z_row_stride + cell * kFineChannels + a * 3 * kFactor;
      const float tap = p.y.taps[i * kTaps + k] * p.x.taps[i * kTaps + l];
      for (int c = 0; c < 3; ++c) rgb[c] += tap * load_as_float(z + c * kFactor + column % kFactor);
    }
  }
  store_rgb(p, i, i, rgb);
}

// Output column j of a row from the sum of its fine rows, whose first entry is fine column `fine`.
inline void resample_column(const ResampleParams& p, int64_t row, int64_t j, int64_t fine, const float (*sum)[kStrip]) {
  float rgb[3] = {};
  for (int c = 0; c < 3; ++c) {
    for (int l = 0; l < kTaps; ++l) rgb[c] += p.x.taps[j * kTaps + l] * sum[c][p.x.first[j] - fine + l];
  }
  store_rgb(p, row, j, rgb);
}

template <class S, class Elem>
void resample_range(const ResampleParams& p, int64_t begin, int64_t end, Strip& strip) {
  if (p.paired) {
    for (int64_t i = begin; i < end; ++i) resample_point<Elem>(p, i);
    return;
  }
  for (int64_t left = 0, right; left < p.x.size; left = right) {
    const int64_t from = p.x.first[left] / kFactor;
    right = left + 1;
    while (right < p.x.size && p.x.first[right] + kTaps - from * kFactor <= kStrip) ++right;
    const int64_t to = (p.x.first[right - 1] + kTaps + kFactor - 1) / kFactor;
    int64_t next = p.y.first[begin];  // first fine row not yet in the ring
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = p.y.first[i];
      next = next < first ? first : next;
      for (; next < first + kTaps; ++next) split_row<Elem>(p, next, from, to, strip.ring[next % kTaps]);
      for (int c = 0; c < 3; ++c) {
        const float* rows[kTaps];
        for (int k = 0; k < kTaps; ++k) rows[k] = strip.ring[(first + k) % kTaps][c];
        S::add_rows(rows, p.y.taps + i * kTaps, (to - from) * kFactor, strip.sum[c]);
      }
      S::columns(p, i, left, right, from * kFactor, strip.sum);
    }
  }
}

template <class S>
void resample_any(const ResampleParams& p, int64_t begin, int64_t end, Strip& strip) {
  p.type == Type::bf16 ? resample_range<S, uint16_t>(p, begin, end, strip) : resample_range<S, float>(p, begin, end, strip);
}

}  // namespace
}  // namespace liif
