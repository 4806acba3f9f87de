#include "ndpipe/train/feature_slice.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <string_view>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/hash.h"

namespace ndpipe::train {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "NDPSLCE1";
constexpr size_t kHeaderBytes = 32;
constexpr int64_t kMaxFeatureSize = int64_t{1} << 26;
constexpr int64_t kMaxRows = int64_t{1} << 32;
constexpr int64_t kMaxBytes = int64_t{1} << 46;
constexpr int64_t kPieceBytes = int64_t{1} << 20;  // read at once

// The file: header, features [num_rows, feature_size], classes [num_rows].
struct Header {
  int64_t feature_size = 0;
  int64_t num_rows = 0;
  uint32_t crc = 0;  // of all that follows the header

  int64_t feature_bytes() const {
    return num_rows * feature_size * static_cast<int64_t>(sizeof(Half));
  }
  int64_t class_bytes() const { return num_rows * static_cast<int64_t>(sizeof(int32_t)); }
  int64_t file_bytes() const {
    return static_cast<int64_t>(kHeaderBytes) + feature_bytes() + class_bytes();
  }
};

bool IsSane(const Header& header) {
  return header.feature_size >= 1 && header.feature_size <= kMaxFeatureSize &&
         header.num_rows >= 0 && header.num_rows <= kMaxRows &&
         header.num_rows <= kMaxBytes / (2 * header.feature_size + 4);
}

std::vector<uint8_t> FormatHeader(const Header& header) {
  ByteWriter writer;
  writer.WriteBytes(AsBytes(kMagic));
  writer.Write<int64_t>(header.feature_size);
  writer.Write<int64_t>(header.num_rows);
  writer.Write<uint32_t>(header.crc);
  writer.Write<uint32_t>(Crc32(writer.bytes()));
  return writer.Take();
}

std::unexpected<Error> Damaged(const std::string& reason) {
  return Fail(ErrorCode::kDataLoss,
              "the feature slice is damaged: " + reason + ": delete it, it can be made again");
}

Result<Header> ParseHeader(std::span<const uint8_t> bytes) {
  ByteReader reader(bytes);
  NDP_ASSIGN(const auto magic, reader.ReadBytes(kMagic.size()));
  if (AsText(magic) != kMagic) return Damaged("it does not begin as one");
  Header header;
  NDP_ASSIGN(header.feature_size, reader.Read<int64_t>());
  NDP_ASSIGN(header.num_rows, reader.Read<int64_t>());
  NDP_ASSIGN(header.crc, reader.Read<uint32_t>());
  NDP_ASSIGN(const uint32_t crc, reader.Read<uint32_t>());
  if (crc != Crc32(bytes.first(kHeaderBytes - sizeof(crc)))) {
    return Damaged("its header's checksum is wrong");
  }
  if (!IsSane(header)) return Damaged("its sizes are absurd");
  return header;
}

Status ReadAt(int fd, int64_t offset, std::span<uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::pread(fd, bytes.data(), bytes.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FailErrno("cannot read a feature slice", errno);
    if (count == 0) return Damaged("it ends early");
    offset += count;
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return {};
}

Status WriteAt(int fd, int64_t offset, std::span<const uint8_t> bytes, const fs::path& file) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(fd, bytes.data(), bytes.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FailErrno("cannot write " + file.string(), errno);
    offset += count;
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return {};
}

// Of what follows the header, as it stands in the file.
Result<uint32_t> CrcOf(int fd, const Header& header) {
  std::vector<uint8_t> piece(kPieceBytes);
  uint32_t crc = 0;
  auto offset = static_cast<int64_t>(kHeaderBytes);
  while (offset < header.file_bytes()) {
    const auto bytes = std::span(piece).first(
        static_cast<size_t>(std::min(kPieceBytes, header.file_bytes() - offset)));
    NDP_RETURN_IF_ERROR(ReadAt(fd, offset, bytes));
    crc = Crc32(bytes, crc);
    offset += static_cast<int64_t>(bytes.size());
  }
  return crc;
}

template <typename T>
std::span<const uint8_t> BytesOf(std::span<const T> values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()};
}

Result<FileDescriptor> OpenFile(const fs::path& file, int flags) {
  FileDescriptor fd(::open(file.c_str(), flags | O_CLOEXEC | O_NONBLOCK, 0600));
  if (!fd.valid()) return FailErrno("cannot open " + file.string(), errno);
  return fd;
}

}  // namespace

FeatureSlice::FeatureSlice(FeatureSet set)
    : feature_size_(set.feature_size), set_(std::make_shared<const FeatureSet>(std::move(set))) {}

FeatureSlice::FeatureSlice(int64_t feature_size, std::vector<int32_t> classes, FileDescriptor file)
    : feature_size_(feature_size),
      file_(std::make_shared<const FileDescriptor>(std::move(file))),
      file_classes_(std::make_shared<const std::vector<int32_t>>(std::move(classes))) {}

FeatureSlice FeatureSlice::View(const FeatureSet& set) {
  FeatureSlice slice;
  slice.feature_size_ = set.feature_size;
  slice.set_ = std::shared_ptr<const FeatureSet>(std::shared_ptr<const void>(), &set);
  return slice;
}

Result<FeatureSlice> FeatureSlice::Open(const fs::path& file) {
  const auto open = [&]() -> Result<FeatureSlice> {
    NDP_ASSIGN(auto fd, OpenFile(file, O_RDONLY));
    struct stat info{};
    if (::fstat(fd.get(), &info) != 0) return FailErrno("cannot read it", errno);
    if (!S_ISREG(info.st_mode)) return Damaged("it is no regular file");
    std::vector<uint8_t> start(kHeaderBytes);
    NDP_RETURN_IF_ERROR(ReadAt(fd.get(), 0, start));
    NDP_ASSIGN(const Header header, ParseHeader(start));
    if (info.st_size != header.file_bytes()) return Damaged("its size is wrong");
    NDP_ASSIGN(const uint32_t crc, CrcOf(fd.get(), header));
    if (crc != header.crc) return Damaged("its checksum is wrong");
    std::vector<int32_t> classes(static_cast<size_t>(header.num_rows));
    NDP_RETURN_IF_ERROR(
        ReadAt(fd.get(), header.file_bytes() - header.class_bytes(),
               {reinterpret_cast<uint8_t*>(classes.data()), classes.size() * sizeof(int32_t)}));
    return FeatureSlice(header.feature_size, std::move(classes), std::move(fd));
  };
  auto slice = open();
  if (!slice) return std::unexpected(std::move(slice).error().Within(file.string()));
  return slice;
}

std::span<const int32_t> FeatureSlice::classes() const {
  if (set_ != nullptr) return set_->classes;
  if (file_classes_ != nullptr) return *file_classes_;
  return {};
}

int64_t FeatureSlice::feature_bytes() const {
  const auto num_values =
      set_ != nullptr ? static_cast<int64_t>(set_->features.size()) : size() * feature_size_;
  return num_values * static_cast<int64_t>(sizeof(Half));
}

Status FeatureSlice::Read(int64_t row, int64_t count, Half* features) const {
  NDP_CHECK(row >= 0 && count >= 0 && row + count <= size());
  if (set_ != nullptr) {
    std::copy_n(set_->features.data() + row * feature_size_, count * feature_size_, features);
    return {};
  }
  const int64_t row_bytes = feature_size_ * static_cast<int64_t>(sizeof(Half));
  return ReadAt(file_ == nullptr ? -1 : file_->get(),
                static_cast<int64_t>(kHeaderBytes) + row * row_bytes,
                {reinterpret_cast<uint8_t*>(features), static_cast<size_t>(count * row_bytes)});
}

Status FeatureSlice::Check(int64_t feature_size, int64_t num_classes) const {
  if (set_ != nullptr) return CheckFeatures(*set_, feature_size, num_classes);
  if (size() == 0) return {};
  NDP_RETURN_IF_ERROR(CheckFeatureSize(feature_size_, feature_size));
  const int64_t rows_at_once =
      std::max<int64_t>(kPieceBytes / (feature_size * static_cast<int64_t>(sizeof(Half))), 1);
  std::vector<Half> piece;
  for (int64_t row = 0; row < size(); row += rows_at_once) {
    const int64_t count = std::min(rows_at_once, size() - row);
    piece.resize(static_cast<size_t>(count * feature_size));
    NDP_RETURN_IF_ERROR(Read(row, count, piece.data()));
    NDP_RETURN_IF_ERROR(
        CheckRows(piece, classes().subspan(static_cast<size_t>(row), static_cast<size_t>(count)),
                  feature_size, num_classes, row));
  }
  return {};
}

FeatureSliceWriter::FeatureSliceWriter(fs::path file, FileDescriptor fd, int64_t feature_size,
                                       int64_t num_rows)
    : file_(std::move(file)),
      fd_(std::move(fd)),
      feature_size_(feature_size),
      classes_(static_cast<size_t>(num_rows), -1) {}

Result<FeatureSliceWriter> FeatureSliceWriter::Create(const fs::path& file, int64_t feature_size,
                                                      int64_t num_rows) {
  const Header header{.feature_size = feature_size, .num_rows = num_rows};
  if (!IsSane(header)) {
    return Fail(ErrorCode::kInvalidArgument, "a feature slice of " + std::to_string(num_rows) +
                                                 " rows of " + std::to_string(feature_size) +
                                                 " features is beyond the bounds");
  }
  NDP_ASSIGN(auto fd, OpenFile(file, O_RDWR | O_CREAT | O_TRUNC));
  // Rows that are never put read as zeroes.
  if (::ftruncate(fd.get(), header.file_bytes()) != 0) {
    return FailErrno("cannot write " + file.string(), errno);
  }
  return FeatureSliceWriter(file, std::move(fd), feature_size, num_rows);
}

Status FeatureSliceWriter::Put(int64_t row, std::span<const Half> features,
                               std::span<const int32_t> classes) {
  NDP_CHECK(row >= 0 && static_cast<size_t>(row) + classes.size() <= classes_.size() &&
            features.size() == classes.size() * static_cast<size_t>(feature_size_));
  std::ranges::copy(classes, classes_.begin() + row);
  const int64_t row_bytes = feature_size_ * static_cast<int64_t>(sizeof(Half));
  return WriteAt(fd_.get(), static_cast<int64_t>(kHeaderBytes) + row * row_bytes, BytesOf(features),
                 file_);
}

Result<FeatureSlice> FeatureSliceWriter::Finish() {
  Header header{.feature_size = feature_size_, .num_rows = static_cast<int64_t>(classes_.size())};
  NDP_RETURN_IF_ERROR(WriteAt(fd_.get(), header.file_bytes() - header.class_bytes(),
                              BytesOf(std::span<const int32_t>(classes_)), file_));
  NDP_ASSIGN(header.crc, CrcOf(fd_.get(), header));
  NDP_RETURN_IF_ERROR(WriteAt(fd_.get(), 0, FormatHeader(header), file_));
  return FeatureSlice(feature_size_, std::move(classes_), std::move(fd_));
}

}  // namespace ndpipe::train
