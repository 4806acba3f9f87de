// What the tests of importing/ share: a source folder, a store, and archives made for the purpose.
#pragma once

#include <archive.h>
#include <archive_entry.h>
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "ndpipe/photo/importing/generator.h"
#include "ndpipe/photo/importing/importer.h"

namespace ndpipe::photo {

inline std::string JpegOf(int64_t index) {
  const auto photo = Generator::Create(20, 7)->Make(index);
  return {photo->jpeg.begin(), photo->jpeg.end()};
}

struct TarEntry {
  std::string name;
  std::string bytes;
  unsigned type = AE_IFREG;
  std::string link{};  // of AE_IFLNK
};

// Writes a tar, compressed by gzip or plain, and returns its bytes.
inline std::string WriteTar(const std::filesystem::path& file, const std::vector<TarEntry>& entries,
                            bool is_compressed) {
  ::archive* tar = archive_write_new();
  if (is_compressed) archive_write_add_filter_gzip(tar);
  archive_write_set_format_pax_restricted(tar);
  archive_write_open_filename(tar, file.c_str());
  for (const TarEntry& wanted : entries) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, wanted.name.c_str());
    archive_entry_set_filetype(entry, wanted.type);
    if (!wanted.link.empty()) archive_entry_set_symlink(entry, wanted.link.c_str());
    archive_entry_set_size(entry, static_cast<int64_t>(wanted.bytes.size()));
    archive_write_header(tar, entry);
    archive_write_data(tar, wanted.bytes.data(), wanted.bytes.size());
    archive_entry_free(entry);
  }
  archive_write_close(tar);
  archive_write_free(tar);
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// A tar file's first header, that claims a size.
inline std::string TarHeaderOf(std::string_view name, std::string_view octal_size) {
  std::string header(512, '\0');
  header.replace(0, name.size(), name);
  header.replace(100, 7, "0000644");
  header.replace(124, octal_size.size(), octal_size);
  header.replace(136, 11, "00000000000");
  header.replace(148, 8, "        ");
  header[156] = '0';
  header.replace(257, 8,
                 std::string("ustar\0"
                             "00",
                             8));
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  header.replace(148, 7, fmt::format("{:06o}", sum) + std::string(1, '\0'));
  return header;
}

// Owns a folder with a source folder and a store in it; both go with the test.
class ImportingFixture : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(source_);
    store_ = OpenStore();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<PhotoStore> OpenStore(const std::string& name = "store") {
    auto store = PhotoStore::Open(folder_ / name);
    if (!store) throw std::runtime_error(store.error().message);
    return *std::move(store);
  }
  void Write(const std::filesystem::path& relative, std::string_view bytes) {
    std::filesystem::create_directories((source_ / relative).parent_path());
    std::ofstream(source_ / relative, std::ios::binary) << bytes;
  }
  // The report; the reason of each failure, by its origin, is in reasons_.
  ImportReport Run(const std::string& source, const ImportOptions& options = {}) {
    auto report = Import(*store_, source, options);
    EXPECT_TRUE(report) << report.error().message;
    reasons_.clear();
    if (!report) return {};
    for (const auto& failure : report->failures) reasons_[failure.origin] = failure.reason;
    EXPECT_EQ(report->found, report->added + report->known + report->failed);
    return *std::move(report);
  }
  CatalogCounts Counts() {
    return store_->WithCatalog([](Catalog& catalog) { return catalog.Counts(); }).value();
  }
  int64_t LastChange() {
    return store_->WithCatalog([](Catalog& catalog) { return catalog.LastChange(); }).value();
  }
  std::vector<Change> Changes(int64_t after = 0) {
    return store_
        ->WithCatalog([&](Catalog& catalog) { return catalog.ReadChanges(after, 100'000); })
        .value();
  }
  std::vector<std::string> LabelsOf(int64_t number) {
    return store_->WithCatalog([&](Catalog& catalog) { return catalog.SourceLabels(number); })
        .value();
  }

  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / ("importing." + std::to_string(::getpid()));
  const std::filesystem::path source_ = folder_ / "source";
  std::unique_ptr<PhotoStore> store_;
  std::map<std::string, std::string> reasons_;
};

}  // namespace ndpipe::photo
