#include "ndpipe/tuner/run_features.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <unordered_map>

#include "ndpipe/base/log.h"

namespace ndpipe::tuner {
namespace {

bool IsLost(const Error& error) {
  return error.code == ErrorCode::kDataLoss || error.code == ErrorCode::kNotFound;
}

}  // namespace

// Where collected features go: to memory while they are few, else to a file.
class RunFeatures::Sink {
 public:
  // views: rows of each photo.
  static Result<Sink> Create(const Source& source, int64_t num_photos, int views) {
    Sink sink;
    sink.views_ = views;
    const int64_t num_rows = num_photos * views;
    const int64_t bytes = num_rows * source.feature_size * static_cast<int64_t>(sizeof(Half));
    if (bytes <= source.max_bytes_in_memory) {
      sink.set_.feature_size = source.feature_size;
      sink.set_.features.resize(static_cast<size_t>(num_rows * source.feature_size));
      sink.set_.classes.resize(static_cast<size_t>(num_rows));
      return sink;
    }
    sink.file_ = source.folder / kCollectedSlice;
    NDP_ASSIGN(sink.writer_,
               train::FeatureSliceWriter::Create(sink.file_, source.feature_size, num_rows));
    return sink;
  }

  // features: [views, feature_size].
  Status Put(int64_t photo, std::span<const Half> features, int32_t class_index) {
    const int64_t row = photo * views_;
    const std::vector<int32_t> classes(static_cast<size_t>(views_), class_index);
    if (writer_) return writer_->Put(row, features, classes);
    std::ranges::copy(features, set_.features.begin() + row * set_.feature_size);
    std::ranges::copy(classes, set_.classes.begin() + row);
    return {};
  }

  Result<train::FeatureSlice> Finish() {
    if (!writer_) return train::FeatureSlice(std::move(set_));
    NDP_ASSIGN(auto slice, writer_->Finish());
    std::error_code ignored;  // the slice holds it open; a name that stays goes with the job
    std::filesystem::remove(file_, ignored);
    return slice;
  }

 private:
  Sink() = default;
  int views_ = 1;
  train::FeatureSet set_;
  std::filesystem::path file_;
  std::optional<train::FeatureSliceWriter> writer_;
};

Status RunFeatures::WaitForRuns(int64_t first, int64_t end, const std::stop_token& stop) {
  const auto& context = source_.context;
  while (true) {
    const auto seen = context.wakeup.count();
    if (stop.stop_requested()) return Fail(ErrorCode::kCancelled, "training was stopped");
    bool all_done = true;
    for (int64_t run = first; run < end; ++run) all_done &= source_.book.IsRunDone(run);
    waits_ = !all_done;
    if (all_done) return {};
    context.wakeup.Wait(seen, context.heartbeat, stop);
  }
}

Status RunFeatures::ExtractAgain(const Block& block, const Error& reason) {
  spdlog::warn("job {}: block {} is extracted again: {}", source_.job, block.number,
               reason.message);
  Block undone = block;
  undone.done = false;
  undone.done_by.clear();
  undone.failed = undone.feature_bytes = undone.photo_bytes = undone.from_features = 0;
  NDP_RETURN_IF_ERROR(
      source_.context.table.MarkBlock(source_.job, undone, source_.extract_clock.Seconds()));
  source_.book.Reopen(block.number);
  source_.context.wakeup.Raise();
  return {};
}

Result<rpc::FeatureBlock> RunFeatures::Read(const Block& block) const {
  NDP_ASSIGN(auto features, source_.spool.Read(block.run, block.number, source_.feature_space));
  if (features.feature_size == source_.feature_size && features.views == block.views) {
    return features;
  }
  return Fail(ErrorCode::kDataLoss, fmt::format("block {} has {} views of size {}, not {} of {}",
                                                block.number, features.views, features.feature_size,
                                                block.views, source_.feature_size));
}

Status RunFeatures::AddRows(const Block& block, int32_t index, const Wanted& wanted,
                            std::vector<Row>& rows) const {
  NDP_ASSIGN(const auto samples, source_.context.table.LoadSamples(source_.job, block.number));
  NDP_ASSIGN(const auto features, Read(block));
  const auto& photos = block.PhotosIn(block.done_by);
  if (samples.size() != photos.size()) {
    return Fail(ErrorCode::kDataLoss, fmt::format("block {} does not fit its plan", block.number));
  }
  std::unordered_map<int64_t, size_t> index_of;
  for (size_t i = 0; i < photos.size(); ++i) index_of.emplace(photos[i], i);
  for (size_t i = 0; i < features.photos.size(); ++i) {
    const auto found = index_of.find(features.photos[i]);
    if (found == index_of.end()) {
      return Fail(ErrorCode::kDataLoss,
                  fmt::format("block {} has photos that were not planned", block.number));
    }
    const Sample& sample = samples[found->second];
    if (sample.use != wanted.use || sample.class_index >= wanted.num_classes) continue;
    if (block.views != ViewsFor(wanted.use)) {
      return Fail(ErrorCode::kInternal,
                  fmt::format("block {} was planned with {} views of photos that need {}",
                              block.number, block.views, ViewsFor(wanted.use)));
    }
    rows.push_back({sample.id, sample.class_index, index, static_cast<int32_t>(i)});
  }
  return {};
}

Status RunFeatures::CopyRows(const Block& block, const std::vector<Row>& rows,
                             std::span<const int64_t> places, Sink& sink) const {
  NDP_ASSIGN(const auto features, Read(block));
  const auto size = static_cast<size_t>(block.views * source_.feature_size);
  for (const int64_t place : places) {
    const Row& row = rows[static_cast<size_t>(place)];
    const auto first = static_cast<size_t>(row.row) * size;
    if (first + size > features.features.size()) {
      return Fail(ErrorCode::kDataLoss, fmt::format("block {} has changed", block.number));
    }
    NDP_RETURN_IF_ERROR(
        sink.Put(place, std::span(features.features).subspan(first, size), row.class_index));
  }
  return {};
}

Result<bool> RunFeatures::IsKept(const Block& block, const Status& status) {
  if (status) return true;
  if (!IsLost(status.error())) return std::unexpected(status.error());
  NDP_RETURN_IF_ERROR(ExtractAgain(block, status.error()));
  return false;
}

// Blocks are read twice, first to know the photos, then for their features, so that nothing is held
// but what is collected. Nothing comes where a block was lost.
Result<std::optional<train::FeatureSlice>> RunFeatures::Gather(const std::vector<Block>& blocks,
                                                               const Wanted& wanted) {
  std::vector<Row> rows;
  bool all_kept = true;
  for (size_t b = 0; b < blocks.size(); ++b) {
    NDP_ASSIGN(const bool kept,
               IsKept(blocks[b], AddRows(blocks[b], static_cast<int32_t>(b), wanted, rows)));
    all_kept &= kept;
  }
  if (!all_kept) return std::nullopt;

  std::ranges::sort(rows, {}, &Row::id);
  std::vector<std::vector<int64_t>> places(blocks.size());  // of each block's rows, in the order
  for (size_t i = 0; i < rows.size(); ++i) {
    places[static_cast<size_t>(rows[i].block)].push_back(static_cast<int64_t>(i));
  }
  NDP_ASSIGN(auto sink, Sink::Create(source_, std::ssize(rows), ViewsFor(wanted.use)));
  for (size_t b = 0; b < blocks.size(); ++b) {
    if (places[b].empty()) continue;
    NDP_ASSIGN(const bool kept, IsKept(blocks[b], CopyRows(blocks[b], rows, places[b], sink)));
    all_kept &= kept;
  }
  if (!all_kept) return std::nullopt;
  NDP_ASSIGN(auto slice, sink.Finish());
  return std::optional(std::move(slice));
}

Result<train::FeatureSlice> RunFeatures::Collect(int64_t first, int64_t end, SampleUse use,
                                                 const std::stop_token& stop, int64_t num_classes) {
  while (true) {
    NDP_RETURN_IF_ERROR(WaitForRuns(first, end, stop));
    std::vector<Block> blocks;
    for (int64_t run = first; run < end; ++run) {
      auto more = source_.book.BlocksOf(run);
      std::ranges::move(more, std::back_inserter(blocks));
    }
    NDP_ASSIGN(auto slice, Gather(blocks, {use, num_classes}));
    if (slice) return *std::move(slice);
  }
}

}  // namespace ndpipe::tuner
