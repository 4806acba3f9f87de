// The official binary archive of CIFAR-100: a tar.gz with train.bin, test.bin and
// fine_label_names.txt. A record is a coarse label, a fine label (a byte each) and 32 × 32 pixels
// as three planes: red, green, blue.
#include <fmt/core.h>

#include <array>
#include <utility>

#include "ndpipe/photo/image/preprocess.h"
#include "ndpipe/photo/importing/archive_reader.h"
#include "ndpipe/photo/importing/intake.h"
#include "ndpipe/photo/importing/sources.h"
#include "ndpipe/photo/location_path.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

constexpr int kSide = 32;
constexpr size_t kPlane = size_t{kSide} * kSide;
constexpr size_t kRecord = 2 + 3 * kPlane;
constexpr size_t kMaxLabels = 256;

// Bounds on what an archive may hold. The official one: 184 MB in all, 154 MB in the largest entry.
constexpr size_t kMaxEntryBytes = size_t{512} << 20;
constexpr size_t kMaxNamesBytes = 1 << 16;
constexpr int64_t kMaxArchiveBytes = int64_t{1} << 30;
constexpr int64_t kMaxEntries = 1000;

struct Cifar100 {
  std::vector<uint8_t> train;
  std::vector<uint8_t> test;
  std::vector<std::string> labels;

  int64_t num_train() const { return static_cast<int64_t>(train.size() / kRecord); }
  int64_t num_test() const { return static_cast<int64_t>(test.size() / kRecord); }
};

Result<std::vector<std::string>> ParseLabels(std::string_view text, const fs::path& file) {
  std::vector<std::string> labels;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    if (!IsPlainUtf8(line) || line.size() > kMaxLabelBytes || labels.size() == kMaxLabels) {
      return Fail(ErrorCode::kDataLoss,
                  file.string() + ": fine_label_names.txt is no list of labels");
    }
    labels.emplace_back(line);
  }
  return labels;
}

Status CheckRecords(const std::vector<uint8_t>& records, size_t num_labels, std::string_view name,
                    const fs::path& file) {
  if (records.size() % kRecord != 0) {
    return Fail(ErrorCode::kDataLoss,
                fmt::format("{}: {} has {} bytes, which is no multiple of a record's {}: it is "
                            "damaged, fetch it again",
                            file.string(), name, records.size(), kRecord));
  }
  for (size_t at = 0; at < records.size(); at += kRecord) {
    if (records[at + 1] >= num_labels) {
      return Fail(ErrorCode::kDataLoss,
                  fmt::format("{}: record {} of {} has the label {}, but there are {} label names",
                              file.string(), at / kRecord, name, records[at + 1], num_labels));
    }
  }
  return {};
}

// Reads the three files of interest into memory and checks them.
Result<Cifar100> ReadCifar100(const fs::path& file) {
  Cifar100 data;
  std::array<bool, 3> has{};
  NDP_ASSIGN(auto reader, ArchiveReader::Open(file, {.kind = "a CIFAR-100 archive",
                                                     .max_bytes = kMaxArchiveBytes,
                                                     .max_entries = kMaxEntries}));
  while (true) {
    NDP_ASSIGN(const auto entry, reader.Next());
    if (!entry) break;
    const std::string_view name = Basename(entry->name);
    const int which = name == "train.bin"              ? 0
                      : name == "test.bin"             ? 1
                      : name == "fine_label_names.txt" ? 2
                                                       : -1;
    if (which < 0) continue;
    if (std::exchange(has[static_cast<size_t>(which)], true)) {
      return Fail(ErrorCode::kDataLoss, fmt::format("{} holds {} twice", file.string(), name));
    }
    NDP_ASSIGN(auto bytes, reader.ReadAll(*entry, which == 2 ? kMaxNamesBytes : kMaxEntryBytes));
    if (which == 0) {
      data.train = std::move(bytes);
    } else if (which == 1) {
      data.test = std::move(bytes);
    } else {
      NDP_ASSIGN(data.labels,
                 ParseLabels({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, file));
    }
  }
  if (!has[0] || !has[1] || !has[2]) {
    return Fail(ErrorCode::kDataLoss,
                file.string() +
                    " is no CIFAR-100 binary archive: it lacks train.bin, test.bin or "
                    "fine_label_names.txt");
  }
  NDP_RETURN_IF_ERROR(CheckRecords(data.train, data.labels.size(), "train.bin", file));
  NDP_RETURN_IF_ERROR(CheckRecords(data.test, data.labels.size(), "test.bin", file));
  return data;
}

Candidate ReadRecord(PhotoStore& store, const Cifar100& data, int64_t index) {
  const bool is_test = index >= data.num_train();
  const int64_t record = is_test ? index - data.num_train() : index;
  const uint8_t* raw =
      (is_test ? data.test : data.train).data() + static_cast<size_t>(record) * kRecord;
  std::array<uint8_t, 3 * kPlane> rgb;
  for (size_t pixel = 0; pixel < kPlane; ++pixel) {
    for (size_t plane = 0; plane < 3; ++plane) {
      rgb[pixel * 3 + plane] = raw[2 + plane * kPlane + pixel];
    }
  }
  NewPhoto photo{.id = {},
                 .path = "",
                 .origin = fmt::format("cifar100:{}/{}", is_test ? "test" : "train", record),
                 .is_test = is_test,
                 .labels = {data.labels[raw[1]]}};
  const auto png = EncodePng(rgb, kSide, kSide);
  if (!png) return FailedCandidate(photo.origin, png.error().message);
  return CopiedCandidate(store, *png, std::move(photo), ".png");
}

}  // namespace

Result<ImportReport> ImportCifar100(PhotoStore& store, const fs::path& archive,
                                    const ImportOptions& options) {
  std::error_code error;
  if (!fs::is_regular_file(archive, error)) {
    return Fail(ErrorCode::kNotFound, "there is no CIFAR-100 archive " + archive.string());
  }
  NDP_ASSIGN(const Cifar100 data, ReadCifar100(archive));
  const Share share(options);
  const int64_t count = share.CountOf(data.num_train() + data.num_test());
  Intake intake(store, options, count);
  OrderedPipeline<Candidate> pipeline(
      count, NumImportThreads(), [&](int64_t i) { return ReadRecord(store, data, share.At(i)); });
  NDP_RETURN_IF_ERROR(intake.TakeAll(pipeline));
  return intake.Finish();
}

}  // namespace ndpipe::photo
