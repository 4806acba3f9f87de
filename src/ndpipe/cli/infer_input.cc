#include "ndpipe/cli/infer_input.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "ndpipe/base/log.h"
#include "ndpipe/cli/photo_folder.h"
#include "ndpipe/photo/derived/derived_reader.h"
#include "ndpipe/photo/image/preprocess.h"
#include "ndpipe/photo/importing/photo_file.h"
#include "ndpipe/photo/published/zip_archive.h"

namespace ndpipe::cli {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxProbed = 100;  // binaries that are tried before the run is given up
constexpr size_t kMagicBytes = 64;
constexpr int64_t kNumbersPage = 100'000;

// The files in a zip, in the archive's order.
class ZipInput : public InferInput {
 public:
  ZipInput(photo::ZipArchive zip, std::vector<int64_t> entries)
      : zip_(std::move(zip)), entries_(std::move(entries)) {}

  Result<std::vector<uint8_t>> Read(int64_t number) override {
    return zip_.Read(EntryOf(number), max_bytes());
  }
  int64_t num_photos() const override { return static_cast<int64_t>(entries_.size()); }
  std::string PathOf(int64_t number) override { return zip_.NameOf(EntryOf(number)); }

 private:
  int64_t EntryOf(int64_t number) const { return entries_.at(static_cast<size_t>(number - 1)); }

  const photo::ZipArchive zip_;
  const std::vector<int64_t> entries_;
};

// A store's photos, in the order of their numbers.
class StoreInput : public InferInput {
 public:
  StoreInput(std::unique_ptr<photo::PhotoStore> store, std::vector<int64_t> numbers,
             std::unique_ptr<photo::DerivedReader> derived)
      : store_(std::move(store)), numbers_(std::move(numbers)), derived_(std::move(derived)) {}

  Result<std::vector<uint8_t>> Read(int64_t number) override {
    return store_->Read(NumberInStore(number));
  }
  int64_t num_photos() const override { return static_cast<int64_t>(numbers_.size()); }
  std::string PathOf(int64_t number) override {
    const auto locations = store_->WithCatalog(
        [&](photo::Catalog& catalog) { return catalog.Locations(NumberInStore(number)); });
    if (locations && !locations->empty()) return locations->front().path;
    return fmt::format("photo {}", NumberInStore(number));
  }
  bool may_have_sidecars() const override { return derived_ != nullptr; }

  // In the codec that most of them are kept in.
  std::optional<InputSidecars> FindSidecars(const photo::PreprocessSpec& spec) override {
    if (derived_ == nullptr) return std::nullopt;
    const auto usages = derived_->ListUsage();
    if (!usages) {
      spdlog::warn("the store's sidecars are not used: {}", usages.error().message);
      return std::nullopt;
    }
    int64_t most = 0;
    InputSidecars found;
    for (const auto codec : photo::SidecarCodecs()) {
      const auto space = photo::SidecarSpace(spec, photo::CodecFor(spec, codec));
      const auto usage = std::ranges::find(*usages, space, &photo::DerivedStore::Usage::space);
      if (usage == usages->end() || usage->items <= most) continue;
      most = usage->items;
      found.codec = codec;
    }
    if (most == 0) return std::nullopt;
    found.read = [this](const std::string& space, int64_t number,
                        const std::function<void(std::span<const uint8_t>)>& take) {
      // An error counts as absent: the photo itself is there.
      (void)derived_->Get(space, NumberInStore(number), take);
    };
    return found;
  }

 private:
  int64_t NumberInStore(int64_t number) const {
    return numbers_.at(static_cast<size_t>(number - 1));
  }

  const std::unique_ptr<photo::PhotoStore> store_;
  const std::vector<int64_t> numbers_;
  const std::unique_ptr<photo::DerivedReader> derived_;  // null: it has nothing derived
};

bool IsHidden(std::string_view name) {
  while (!name.empty()) {
    const size_t end = std::min(name.find('/'), name.size());
    const std::string_view part = name.substr(0, end);
    if (part.starts_with('.') && part != "." && part != "..") return true;
    name.remove_prefix(std::min(end + 1, name.size()));
  }
  return false;
}

bool IsPhoto(const photo::ZipArchive& zip, int64_t entry, const std::string& name) {
  return photo::HasPhotoName(name) || !photo::FormatOf(zip.ReadHead(entry, kMagicBytes)).empty();
}

// Photos if there are any and they are wanted, else everything.
template <typename File>
std::vector<File> Choose(std::vector<File> photos, std::vector<File> others, bool as_preprocessed,
                         OpenedInput& opened) {
  opened.is_preprocessed = as_preprocessed || photos.empty();
  if (!opened.is_preprocessed) {
    opened.num_passed_over = static_cast<int64_t>(others.size());
    return photos;
  }
  photos.insert(photos.end(), others.begin(), others.end());
  std::ranges::sort(photos);
  return photos;
}

Result<OpenedInput> OpenZip(const fs::path& path, bool as_preprocessed) {
  NDP_ASSIGN(auto zip, photo::ZipArchive::Open(path));
  std::vector<int64_t> photos;
  std::vector<int64_t> others;
  for (int64_t entry = 0; entry < zip.num_entries(); ++entry) {
    const std::string name = zip.NameOf(entry);
    if (name.ends_with('/') || IsHidden(name)) continue;
    (IsPhoto(zip, entry, name) ? photos : others).push_back(entry);
  }
  OpenedInput opened;
  auto chosen = Choose(std::move(photos), std::move(others), as_preprocessed, opened);
  opened.source = std::make_unique<ZipInput>(std::move(zip), std::move(chosen));
  return opened;
}

Result<OpenedInput> OpenStore(const fs::path& path, bool as_preprocessed) {
  if (as_preprocessed) {
    return Fail(ErrorCode::kInvalidArgument,
                path.string() + " is a photo store: it holds photos, which have no --layout");
  }
  NDP_ASSIGN(auto store, photo::PhotoStore::Open(path));
  std::vector<int64_t> numbers;
  while (true) {
    NDP_ASSIGN(const auto page, store->WithCatalog([&](photo::Catalog& catalog) {
      return catalog.Numbers(numbers.empty() ? 0 : numbers.back(), kNumbersPage);
    }));
    if (page.empty()) break;
    numbers.insert(numbers.end(), page.begin(), page.end());
  }
  auto derived = photo::DerivedReader::Open(store->derived_folder());
  if (!derived && derived.error().code != ErrorCode::kNotFound) {
    spdlog::warn("the store's sidecars are not used: {}", derived.error().message);
  }
  OpenedInput opened;
  opened.source = std::make_unique<StoreInput>(std::move(store), std::move(numbers),
                                               derived ? *std::move(derived) : nullptr);
  return opened;
}

Result<OpenedInput> OpenFolder(const fs::path& path, bool as_preprocessed) {
  NDP_ASSIGN(auto files, ListFolder(path));
  OpenedInput opened;
  auto chosen = Choose(std::move(files.photos), std::move(files.others), as_preprocessed, opened);
  opened.source = std::make_unique<PhotoFolder>(path, std::move(chosen));
  return opened;
}

Result<OpenedInput> OpenFile(const fs::path& path, bool as_preprocessed) {
  if (photo::BeginsLikeAZip(path)) return OpenZip(path, as_preprocessed);
  if (!photo::BeginsLikeAPhoto(path)) {
    return Fail(ErrorCode::kInvalidArgument,
                path.string() + " is neither a photo nor a zip: name a folder, a zip or a store");
  }
  OpenedInput opened;
  opened.source = std::make_unique<PhotoFolder>(path.parent_path(),
                                                std::vector<std::string>{path.filename().string()});
  return opened;
}

}  // namespace

Result<OpenedInput> OpenInferInput(const fs::path& path, bool as_preprocessed) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    return FailErrno("cannot read " + path.string(), error ? error.value() : ENOENT);
  }
  const bool is_store = fs::is_directory(status) && fs::exists(path / "catalog.db", error);
  NDP_ASSIGN(auto opened, is_store                   ? OpenStore(path, as_preprocessed)
                          : fs::is_directory(status) ? OpenFolder(path, as_preprocessed)
                                                     : OpenFile(path, as_preprocessed));
  if (opened.source->num_photos() > 0) return opened;
  return Fail(ErrorCode::kNotFound,
              "no photos (JPEG, PNG, WebP, HEIF, AVIF) and no preprocessed "
              "binaries in " +
                  path.string());
}

Result<photo::PreprocessedForm> TellForm(InferInput& source, const photo::PreprocessSpec& spec,
                                         const std::string& layout) {
  photo::PreprocessedForm form{.height = spec.crop_height, .width = spec.crop_width};
  std::string first_reason;
  for (int64_t number = 1; number <= std::min(source.num_photos(), kMaxProbed); ++number) {
    const auto bytes = source.Read(number);
    const auto element = bytes ? photo::TellElement(*bytes, form.height, form.width)
                               : Result<photo::Element>(std::unexpected(bytes.error()));
    if (!element) {
      if (first_reason.empty()) {
        first_reason = fmt::format("{}: {}", source.PathOf(number), element.error().message);
      }
      continue;
    }
    form.element = *element;
    if (layout.empty() && form.element == photo::Element::kUint8) {
      return Fail(ErrorCode::kInvalidArgument,
                  "these are uint8 pixels: say how they lie with --layout hwc (pixel by pixel) or "
                  "--layout chw (plane by plane)");
    }
    form.layout = photo::Layout::kChw;
    if (!layout.empty()) {
      NDP_ASSIGN(form.layout, photo::ParseLayout(layout));
    }
    if (form.element == photo::Element::kFloat32 && form.layout != photo::Layout::kChw) {
      return Fail(ErrorCode::kInvalidArgument,
                  "these are float32 values, the network's own input: it is chw, plane by plane");
    }
    return form;
  }
  return Fail(
      ErrorCode::kInvalidArgument,
      "no photos, and no preprocessed binaries for this model; the first file, " + first_reason);
}

}  // namespace ndpipe::cli
