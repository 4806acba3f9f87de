// WebDataset: a tar whose neighbouring files make a sample when their names are the same up to the
// first dot. Read in one pass; photos are copied as they come, and catalogued with their sample's
// label when the sample ends.
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "ndpipe/photo/image/preprocess.h"
#include "ndpipe/photo/importing/archive_reader.h"
#include "ndpipe/photo/importing/intake.h"
#include "ndpipe/photo/importing/photo_file.h"
#include "ndpipe/photo/importing/sources.h"
#include "ndpipe/photo/importing/webdataset_sample.h"
#include "ndpipe/photo/location_path.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

// Photos are compressed already: what unpacks to more than this was made to harm.
constexpr int64_t kMaxRatio = 100;
constexpr int64_t kMinUnpackedBytes = int64_t{64} << 20;
constexpr int64_t kMaxEntries = int64_t{1} << 40;
constexpr size_t kMaxPhotosASample = 64;
constexpr size_t kMaxLabelFileBytes = size_t{1} << 20;
constexpr int64_t kMagicBytes = 64;

int64_t MaxUnpackedBytes(int64_t archive_bytes) {
  return std::max(
      kMinUnpackedBytes,
      std::min(archive_bytes, std::numeric_limits<int64_t>::max() / kMaxRatio) * kMaxRatio);
}

struct Sample {
  std::string key;
  std::vector<Candidate> photos;
  std::array<std::optional<std::string>, 3> labels;  // by LabelKind
  std::vector<std::string> label_files;

  // What the most explicit of its files says.
  const std::string* label() const {
    const auto first =
        std::ranges::find_if(labels, [](const auto& label) { return label.has_value(); });
    return first == labels.end() ? nullptr : &**first;
  }
};

class WebDatasetImport {
 public:
  WebDatasetImport(PhotoStore& store, const ImportOptions& options, fs::path file,
                   ArchiveReader reader)
      : store_(store),
        options_(options),
        file_(std::move(file)),
        reader_(std::move(reader)),
        intake_(store, options, 0) {}

  Result<ImportReport> Run() {
    while (!options_.stop.stop_requested()) {
      auto entry = reader_.Next();
      const bool is_end = entry && !entry->has_value();
      Status taken = is_end  ? FinishSample()
                     : entry ? TakeFile(**entry)
                             : Status(std::unexpected(std::move(entry).error()));
      if (taken && !is_end) continue;
      auto report = intake_.Finish();
      if (!taken && report) {
        taken.error().message += "; the photos before that are imported";
        return std::unexpected(std::move(taken).error());
      }
      return report;
    }
    NDP_RETURN_IF_ERROR(intake_.Stopped());
    return intake_.Finish();
  }

 private:
  Status TakeFile(const ArchiveEntry& entry) {
    if (entry.name.empty()) return Refuse(entry, "a file without a name");
    const SampleName name = SplitSampleName(entry.name);
    if (Basename(entry.name).starts_with('.')) return {};
    if (name.key != sample_.key) {
      NDP_RETURN_IF_ERROR(FinishSample());
      sample_.key = name.key;
      ++num_samples_;
    }
    const int64_t sample = num_samples_ - 1;
    if (sample % options_.num_shares != options_.share) return {};
    if (const auto kind = LabelKindOf(name.extension)) return TakeLabel(entry, *kind);
    return TakePhoto(entry);
  }

  Status TakeLabel(const ArchiveEntry& entry, LabelKind kind) {
    if (std::cmp_greater(entry.size, kMaxLabelFileBytes)) {
      return Refuse(entry, fmt::format("its label cannot be read: it has {} bytes", entry.size));
    }
    NDP_ASSIGN(const auto bytes, reader_.ReadAll(entry, kMaxLabelFileBytes));
    auto label = ParseLabel(kind, bytes);
    if (!label) return Refuse(entry, std::move(label).error().message);
    if (!*label) return {};
    sample_.labels[static_cast<size_t>(kind)] = **std::move(label);
    if (sample_.label_files.size() < sample_.labels.size()) {
      sample_.label_files.push_back(entry.name);
    }
    return {};
  }

  // Told by name and content, as in a folder.
  Status TakePhoto(const ArchiveEntry& entry) {
    std::vector<uint8_t> bytes;
    NDP_RETURN_IF_ERROR(reader_.ReadUpTo(std::min(entry.size, kMagicBytes), bytes));
    const std::string_view format = FormatOf(bytes);
    if (format.empty() && !HasPhotoName(entry.name)) return {};
    if (const std::string reason = ReasonAgainst(entry, format); !reason.empty()) {
      return Refuse(entry, reason);
    }
    NDP_RETURN_IF_ERROR(reader_.ReadUpTo(entry.size, bytes));
    const std::string extension = format == "jpeg" ? ".jpg" : fmt::format(".{}", format);
    sample_.photos.push_back(
        CopiedCandidate(store_, bytes, {.origin = OriginOf(entry)}, extension));
    return {};
  }

  // Why the file is not imported; empty when it is.
  std::string ReasonAgainst(const ArchiveEntry& entry, std::string_view format) const {
    if (entry.size == 0) return "the file is empty";
    if (format.empty()) return "its content is no photo (JPEG, PNG, WebP, HEIF, AVIF)";
    if (!IsPlainUtf8(entry.name)) return "the file's name is not UTF-8: rename it";
    if (OriginOf(entry).size() > kMaxPathBytes) return "the file's name is too long";
    if (std::cmp_greater(entry.size, kMaxPhotoBytes)) {
      return fmt::format("it has {} bytes, more than the limit of {}", entry.size, kMaxPhotoBytes);
    }
    if (sample_.photos.size() >= kMaxPhotosASample) {
      return fmt::format("its sample holds more than {} photos", kMaxPhotosASample);
    }
    return {};
  }

  Status FinishSample() {
    const std::string* label = sample_.label();
    if (sample_.photos.empty() && label != nullptr && !sample_had_refusals_) {
      for (const std::string& name : sample_.label_files) {
        NDP_RETURN_IF_ERROR(intake_.Take(
            FailedCandidate(EscapedOrigin(name),
                            "no photo stands beside this label: sort the archive by name "
                            "(tar --sort=name)")));
      }
    }
    for (Candidate& candidate : sample_.photos) {
      if (label != nullptr && candidate.photo) candidate.photo->labels = {*label};
      NDP_RETURN_IF_ERROR(intake_.Take(std::move(candidate)));
    }
    sample_ = {};
    sample_had_refusals_ = false;
    return {};
  }

  Status Refuse(const ArchiveEntry& entry, std::string reason) {
    sample_had_refusals_ = true;
    return intake_.Take(FailedCandidate(EscapedOrigin(entry.name), std::move(reason)));
  }

  std::string OriginOf(const ArchiveEntry& entry) const {
    return fmt::format("webdataset:{}/{}", file_.filename().string(), entry.name);
  }
  static std::string EscapedOrigin(const std::string& name) {
    return IsPlainUtf8(name) ? name : EscapeBytes(name);
  }

  PhotoStore& store_;
  const ImportOptions& options_;
  const fs::path file_;
  ArchiveReader reader_;
  Intake intake_;
  Sample sample_;
  bool sample_had_refusals_ = false;  // a photo of it may have been one of them
  int64_t num_samples_ = 0;
};

}  // namespace

Result<ImportReport> ImportWebDataset(PhotoStore& store, const fs::path& archive,
                                      const ImportOptions& options) {
  std::error_code error;
  if (!fs::is_regular_file(archive, error)) {
    return Fail(ErrorCode::kNotFound, "there is no WebDataset archive " + archive.string());
  }
  const auto size = static_cast<int64_t>(fs::file_size(archive, error));
  if (error) return FailErrno("cannot read " + archive.string(), error.value());
  NDP_ASSIGN(auto reader, ArchiveReader::Open(archive, {.kind = "a WebDataset archive of its size",
                                                        .max_bytes = MaxUnpackedBytes(size),
                                                        .max_entries = kMaxEntries}));
  return WebDatasetImport(store, options, archive, std::move(reader)).Run();
}

}  // namespace ndpipe::photo
