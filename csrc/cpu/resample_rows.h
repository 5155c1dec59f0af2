// The resampler once, over what differs between instruction sets. The rows first: for an output row the fine rows it needs, split
// by channel and kept in a ring, are summed; then each of its pixels is a sum of kTaps neighbours in that sum.
//
// S has:  add_rows(ring rows, taps, count, out): out[x] = sum_k taps[k] * row[k][x], and
//         columns(p, row, begin, end, even, fine, sum): output columns [begin, end) from `sum`, whose first entry is fine
//         column `fine`; `even`: the run among them that moves on evenly.
//         L, the columns that it sums at once.
#pragma once

#include <cstring>

#include "isa.h"

namespace liif {
namespace {

inline float load_as_float(const float* p) { return *p; }
inline float load_as_float(const uint16_t* p) { return bf16_to_float(*p); }

// Output columns [begin, end), each a fine one beyond the last and with the same taps: nearly all at x4, few at other scales.
struct Run {
  int64_t begin, end;
};

inline Run even_run(const TapTable& x, int64_t begin, int64_t end) {
  const auto even = [&](int64_t j) {  // from j to j + 1
    const float* taps = x.taps + j * kTaps;
    return x.first[j + 1] == x.first[j] + 1 && std::memcmp(taps, taps + kTaps, kTaps * sizeof(float)) == 0;
  };
  const int64_t middle = begin + (end - begin) / 2;
  Run run{middle, middle + 1};
  while (run.begin > begin && even(run.begin - 1)) --run.begin;
  while (run.end < end && even(run.end - 1)) ++run.end;
  return run;
}

// The fine rows of a row of cells between cells [from, to), one plane per channel. Past the picture's edge they are zero.
template <class Elem>
void split_row(const ResampleParams& p, int64_t row, int64_t from, int64_t to, float (*out)[3][kStrip]) {
  const int64_t inside = row >= p.rows ? from : to < p.columns ? to : p.columns;
  const Elem* z = static_cast<const Elem*>(p.z) + row * p.z_row_stride + from * kFineChannels;
  int64_t at = 0;
  for (int64_t cell = from; cell < inside; ++cell, at += kFactor) {
    // A strip's next row lies too far away for processors to foresee.
    for (int k = 0; k < kFineChannels; k += 64 / sizeof(Elem)) __builtin_prefetch(z + p.z_row_stride + k);
    for (int a = 0; a < kFactor; ++a, z += 3 * kFactor) {
      float fine[3 * kFactor];  // all are read before any is written: the compiler cannot know that they do not overlap
      for (int k = 0; k < 3 * kFactor; ++k) fine[k] = load_as_float(z + k);
      for (int c = 0; c < 3; ++c) {
        for (int b = 0; b < kFactor; ++b) out[a][c][at + b] = fine[c * kFactor + b];
      }
    }
  }
  for (; at < (to - from) * kFactor; ++at) {
    for (int a = 0; a < kFactor; ++a) out[a][0][at] = out[a][1][at] = out[a][2][at] = 0;
  }
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
    if (right < p.x.size && right - left > S::L) right -= (right - left) % S::L;  // whole vectors
    const int64_t to = (p.x.first[right - 1] + kTaps + kFactor - 1) / kFactor;
    const Run even = even_run(p.x, left, right);
    int64_t next = p.y.first[begin] / kFactor;  // first row of cells not yet in the ring
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = p.y.first[i], row = first / kFactor;
      next = next < row ? row : next;
      for (; next * kFactor < first + kTaps; ++next) {
        split_row<Elem>(p, next, from, to, strip.ring + next % kRingCells * kFactor);
      }
      for (int c = 0; c < 3; ++c) {
        const float* rows[kTaps];
        for (int k = 0; k < kTaps; ++k) rows[k] = strip.ring[(first + k) % (kRingCells * kFactor)][c];
        S::add_rows(rows, p.y.taps + i * kTaps, (to - from) * kFactor, strip.sum[c]);
      }
      S::columns(p, i, left, right, even, from * kFactor, strip.sum);
    }
  }
}

template <class S>
void resample_any(const ResampleParams& p, int64_t begin, int64_t end, Strip& strip) {
  p.type == Type::bf16 ? resample_range<S, uint16_t>(p, begin, end, strip) : resample_range<S, float>(p, begin, end, strip);
}

}  // namespace
}  // namespace liif
